# METADATA
# title: Key release
# description: The key of sealed weights goes only to a holder of a grant, for the registered manifest of a version that is fit for use.
# custom:
#   severity: critical
#   message: "the key cannot be released"
#   messages:
#     foreign_tenant: "{model} belongs to another tenant"
#     other_digest: "the manifest {asked} is not the registered one of {model}"
#     not_registered: "{model} is not registered"
#     revoked: "{model} is revoked"
#     not_approved: "{model} is approved by {found} people over its current manifest; {required} are needed"
#     card_incomplete: "the card of {model} is incomplete: {missing}"
#     consent_withdrawn: "{model} was trained on {dataset}, whose consent is withdrawn"
#   remediation: Ask an operator for a grant in the domain weights.
#   remediations:
#     foreign_tenant: Use a model of your own tenant.
#     other_digest: Use the sealed folder whose manifest digest portcullis model show prints.
#     not_registered: Register the version (portcullis model register) or correct its name.
#     revoked: Use another version; a revoked one cannot come back.
#     not_approved: Have more registered approvers sign this manifest (portcullis model approve).
#     card_incomplete: Fill in the card (portcullis model card).
#     consent_withdrawn: Deploy a version that was trained without this dataset.
#   controls: [eu-ai-act/art-15, soc2/cc6.1, gdpr/art-32]
package portcullis.rules.weights["key-release"]

import data.portcullis.lib.grants
import data.portcullis.lib.models

default checked := false

checked if {
	is_string(input.request.manifest_digest)
	is_string(input.request.principal.tenant)
	models.readable(input.facts.model)
}

checked if {
	is_string(input.request.manifest_digest)
	is_object(input.facts)
	not models.found
}

grant contains id if some id in grants.ids

deny contains {"path": "model", "args": {"reason": "not_registered", "model": named}} if not models.found

deny contains {"path": "model", "args": {"reason": "foreign_tenant", "model": named}} if {
	models.found
	not models.ours
}

deny contains {"path": "manifest", "args": args} if {
	models.found
	not registered
	args := {"reason": "other_digest", "model": named, "asked": input.request.manifest_digest}
}

deny contains {"path": "model", "args": fault} if some fault in models.faults(input.facts.model)

named := concat("@", [input.request.model, input.request.version])

registered if input.facts.model.manifest_digest == input.request.manifest_digest
