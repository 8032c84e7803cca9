# METADATA
# title: Namespace isolation
# description: A workload stays inside its namespace's team and tenant, and away from the node.
# custom:
#   severity: critical
#   message: "the namespace {namespace} is not isolated"
#   messages:
#     no_team: "the namespace {namespace} belongs to no team"
#     host_access: "{at} reaches into the node ({kind})"
#     foreign_account: "a service account of the namespace {from} may not act in {namespace}"
#     foreign_model: "{model} belongs to another tenant"
#   remediation: Keep the workload within its own namespace.
#   remediations:
#     no_team: Have an operator add the namespace to a team.
#     host_access: Remove the host access from the pod template.
#     foreign_account: Use a service account of this namespace.
#     foreign_model: Register the model in this tenant.
#   controls: [soc2/cc6.1, soc2/cc6.6, hipaa/164.312-a-1, iso-42001/a.4.5]
package portcullis.rules.admission["namespace-isolation"]

import data.portcullis.lib.models
import data.portcullis.lib.workloads

default checked := false

checked if {
	is_string(input.request.namespace)
	is_string(input.request.principal.kind)
	is_array(input.request.host_access)
	is_array(input.facts.models)
}

deny contains {"path": "metadata.namespace", "args": {"reason": "no_team", "namespace": input.request.namespace}} if {
	workloads.changes
	not owned
}

deny contains {"path": access.path, "args": {"reason": "host_access", "at": access.path, "kind": access.kind}} if {
	workloads.changes
	some access in input.request.host_access
	access.kind in {"host_network", "host_pid", "host_ipc", "host_path", "privileged", "device_admin"}
}

deny contains {"path": "metadata.namespace", "args": args} if {
	workloads.changes
	input.request.principal.kind == "service_account"
	not at_home
	not controller
	from := object.get(input.request.principal, "namespace", "")
	args := {"reason": "foreign_account", "namespace": input.request.namespace, "from": from}
}

deny contains {"path": input.request.pod_path, "args": {"reason": "foreign_model", "model": models.ref(model)}} if {
	workloads.changes
	some model in input.facts.models
	not ours(model)
}

at_home if input.request.principal.namespace == input.request.namespace

controller if input.request.principal.namespace in input.config.controller_namespaces

owned if is_string(input.config.team)

ours(model) if model.tenant == input.config.tenant
