"""Rules in Rego, the engines that run them, and the operator's configuration. Knows nothing of Kubernetes or HTTP."""
