# METADATA
# title: Frozen
# description: Nothing is started or changed with a frozen model, by a frozen caller or for a frozen tenant. No mode and no exemption weakens it.
# custom:
#   severity: critical
#   message: "this is frozen"
#   messages:
#     model: "{subject} is frozen"
#     caller: "the caller is frozen"
#     tenant: "the tenant {subject} is frozen"
#   remediation: Ask an administrator to unfreeze it (portcullis unfreeze) when the reason for the freeze is gone.
#   controls: [eu-ai-act/art-14, eu-ai-act/art-26-5, nist-ai-rmf/manage-2.4, soc2/cc7.4, hipaa/164.312-a-1]
package portcullis.rules.admission.frozen

import data.portcullis.lib.freezes
import data.portcullis.lib.workloads

default checked := false

checked if {
	is_string(input.request.operation)
	is_number(input.request.gpu_shares)
	is_boolean(input.request.accelerators_found)
	is_array(input.request.containers)
	freezes.readable
}

# What is on its way out, and what runs nothing, goes on: a stop must not keep alive what it stops.
deny contains {"path": input.request.pod_path, "args": reason} if {
	workloads.changes
	runs_something
	some reason in freezes.reasons
}

runs_something if count(input.request.containers) > 0

runs_something if workloads.holds_gpu

runs_something if input.request.accelerators_found == true
