# METADATA
# title: GPU quota
# description: A team holds no more GPUs than its quota, counted over the whole object in integer shares.
# custom:
#   severity: high
#   message: "{asked} GPUs are asked for and {used} are in use; the team's quota is {limit}"
#   messages:
#     no_limit: "{asked} GPUs are asked for and the team has no quota"
#     unknown_kind: "{kind} asks for an accelerator, and this kind cannot be counted"
#     without_request: "{at} takes GPUs without asking for them in its resources"
#   remediation: Ask for fewer GPUs, delete a workload of the team, or have the quota raised.
#   remediations:
#     no_limit: Have an operator set gpu_quota for the team.
#     unknown_kind: Use a workload kind that is counted, or a plain Pod.
#     without_request: Remove the device access and ask for the GPUs under resources.limits.
#   units: {asked: gpu, used: gpu, limit: gpu}
#   controls: [nist-ai-rmf/govern-1.6, iso-42001/a.4.5, soc2/cc6.1]
package portcullis.rules.admission["gpu-quota"]

import data.portcullis.lib.workloads

default checked := false

checked if {
	is_number(input.request.gpu_shares)
	is_boolean(input.request.known_kind)
	is_boolean(input.request.accelerators_found)
	is_array(input.request.host_access)
	is_number(input.facts.quota.used_shares)
}

deny contains {"path": input.request.pod_path, "args": {"asked": asked, "used": used, "limit": limit}} if {
	workloads.changes
	workloads.holds_gpu
	asked := input.request.gpu_shares
	used := input.facts.quota.used_shares
	limit := input.config.gpu_limit_shares
	asked + used > limit
}

deny contains {"path": input.request.pod_path, "args": {"reason": "no_limit", "asked": input.request.gpu_shares}} if {
	workloads.changes
	workloads.holds_gpu
	not limited
}

deny contains {"path": input.request.pod_path, "args": {"reason": "unknown_kind", "kind": input.request.kind}} if {
	workloads.changes
	input.request.known_kind == false
	input.request.accelerators_found == true
}

deny contains {"path": access.path, "args": {"reason": "without_request", "at": access.path}} if {
	workloads.changes
	some access in input.request.host_access
	access.kind == "gpu_without_request"
}

limited if is_number(input.config.gpu_limit_shares)
