# METADATA
# title: Encrypted weights
# description: Weights are loaded only from sealed places whose manifest is the registered one of a model that the workload names.
# custom:
#   severity: high
#   message: "the weights at {at} cannot be accepted"
#   messages:
#     plain: "{at} loads weights in the clear ({scheme})"
#     no_digest: "{at} names sealed weights without their manifest digest"
#     unknown_digest: "{at} names the manifest {digest}, which is not the registered one of a model that the workload names"
#     no_weights: "the workload names a model and not where its weights are"
#   remediation: Seal the weights and name them as sealed://PATH@sha256:DIGEST.
#   remediations:
#     unknown_digest: Use the manifest digest that portcullis model show prints for the model in portcullis.dev/model.
#     no_weights: Add the annotation portcullis.dev/weights with a sealed:// address to the pod template.
#   controls: [eu-ai-act/art-15, soc2/cc6.7, gdpr/art-32]
package portcullis.rules.admission["encrypted-weights"]

import data.portcullis.lib.workloads

default checked := false

checked if {
	is_number(input.request.gpu_shares)
	is_array(input.request.models)
	is_array(input.request.weights)
	is_array(input.facts.models)
}

deny contains {"path": use.path, "args": {"reason": "plain", "at": use.path, "scheme": use.scheme}} if {
	workloads.changes
	some use in input.request.weights
	use.sealed == false
}

deny contains {"path": use.path, "args": {"reason": "no_digest", "at": use.path}} if {
	workloads.changes
	some use in input.request.weights
	use.sealed == true
	not named(use)
}

deny contains {"path": use.path, "args": {"reason": "unknown_digest", "at": use.path, "digest": use.manifest_digest}} if {
	workloads.changes
	some use in input.request.weights
	use.sealed == true
	named(use)
	not use.manifest_digest in workloads.digests
}

deny contains {"path": input.request.pod_path, "args": {"reason": "no_weights"}} if {
	workloads.changes
	workloads.holds_gpu
	count(input.request.models) > 0
	count(input.request.weights) == 0
}

named(use) if is_string(use.manifest_digest)
