# METADATA
# title: Model access
# description: A caller uses a model only by a grant, and only while the model is registered, approved, documented and lawful to use.
# custom:
#   severity: high
#   message: "the model cannot be used"
#   messages:
#     foreign_tenant: "{model} belongs to another tenant"
#     not_registered: "{model} is not registered"
#     revoked: "{model} is revoked"
#     not_approved: "{model} is approved by {found} people over its current manifest; {required} are needed"
#     card_incomplete: "the card of {model} is incomplete: {missing}"
#     consent_withdrawn: "{model} was trained on {dataset}, whose consent is withdrawn"
#   remediation: Ask an operator for a grant, or use another model.
#   remediations:
#     foreign_tenant: Use a model of your own tenant.
#     not_registered: Register the version (portcullis model register) or correct its name.
#     revoked: Use another version; a revoked one cannot come back.
#     not_approved: Have more registered approvers sign this manifest (portcullis model approve).
#     card_incomplete: Fill in the card (portcullis model card).
#     consent_withdrawn: Deploy a version that was trained without this dataset.
#   controls: [soc2/cc6.1, eu-ai-act/art-26-5, iso-42001/a.9.4, gdpr/art-7-3]
package portcullis.rules.gateway["model-access"]

import data.portcullis.lib.grants
import data.portcullis.lib.models

default checked := false

checked if {
	is_string(input.request.principal.tenant)
	models.readable(input.facts.model)
}

# An unregistered version is denied by name; there is nothing more to read.
checked if {
	is_string(input.request.principal.tenant)
	is_object(input.facts)
	not models.found
}

grant contains id if some id in grants.ids

deny contains {"path": "model", "args": {"reason": "not_registered", "model": models.ref(asked)}} if {
	asked := {"name": input.request.model, "version": input.request.version}
	not models.found
}

deny contains {"path": "model", "args": {"reason": "foreign_tenant", "model": models.ref(input.facts.model)}} if {
	models.found
	not models.ours
}

deny contains {"path": "model", "args": fault} if some fault in models.faults(input.facts.model)
