# METADATA
# title: Approved model
# description: A workload with a GPU names its model, and every model it names is registered, approved, documented and lawful to use.
# custom:
#   severity: high
#   message: "the model of this workload cannot be accepted"
#   messages:
#     no_model: "the workload holds GPUs and names no model"
#     unreadable: "the model named at {at} cannot be read"
#     not_registered: "{model} is not registered"
#     revoked: "{model} is revoked"
#     not_approved: "{model} is approved by {found} people over its current manifest; {required} are needed"
#     card_incomplete: "the card of {model} is incomplete: {missing}"
#     consent_withdrawn: "{model} was trained on {dataset}, whose consent is withdrawn"
#   remediation: Name a registered, approved version in the annotation portcullis.dev/model.
#   remediations:
#     no_model: "Add the annotation portcullis.dev/model: NAME@VERSION to the pod template."
#     unreadable: "Write it as NAME@VERSION."
#     not_registered: Register the version (portcullis model register) or correct its name.
#     revoked: Use another version; a revoked one cannot come back.
#     not_approved: Have more registered approvers sign this manifest (portcullis model approve).
#     card_incomplete: Fill in the card (portcullis model card).
#     consent_withdrawn: Deploy a version that was trained without this dataset.
#   controls: [eu-ai-act/art-10, eu-ai-act/art-11, soc2/cc8.1, iso-42001/a.6.2.5, gdpr/art-7-3]
package portcullis.rules.admission["approved-model"]

import data.portcullis.lib.models
import data.portcullis.lib.workloads

default checked := false

checked if {
	is_number(input.request.gpu_shares)
	is_array(input.request.models)
	is_array(input.facts.models)
	every model in input.facts.models {
		models.readable(model)
	}
}

deny contains {"path": input.request.pod_path, "args": {"reason": "no_model"}} if {
	workloads.changes
	workloads.holds_gpu
	not workloads.grows
	count(input.request.models) == 0
}

deny contains {"path": use.path, "args": {"reason": "unreadable", "at": use.path}} if {
	workloads.changes
	some use in input.request.models
	not named(use)
}

deny contains {"path": use.path, "args": {"reason": "not_registered", "model": models.ref(use)}} if {
	workloads.changes
	some use in input.request.models
	named(use)
	not models.ref(use) in workloads.registered
}

deny contains {"path": input.request.pod_path, "args": fault} if {
	workloads.changes
	some model in input.facts.models
	some fault in models.faults(model)
}

named(use) if {
	is_string(use.name)
	is_string(use.version)
}
