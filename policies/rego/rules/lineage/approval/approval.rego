# METADATA
# title: Approval by two people
# description: A signature counts as an approval when a registered approver, not the author, signed this manifest, once.
# custom:
#   severity: critical
#   message: "this approval does not count"
#   messages:
#     not_registered: "{model} is not registered"
#     no_manifest: "{model} has no manifest digest to approve"
#     other_digest: "the statement is about {signed}; the manifest of {model} is {registered}"
#     card_incomplete: "the card of {model} is incomplete: {missing}"
#     unknown_key: "the signing key is not registered"
#     bad_signature: "the signature is not valid"
#     key_revoked: "the signing key is revoked"
#     not_approver: "the signer does not hold the role approver"
#     other_person: "the statement is signed by somebody else than the one who submits it"
#     author: "the author of {model} cannot approve it"
#     twice: "this person has approved this manifest of {model} already; another person is needed"
#   remediation: Have another registered approver sign the current manifest.
#   remediations:
#     unknown_key: Have an administrator register the approver (portcullis identity approver add).
#     no_manifest: Seal the weights and set the manifest digest first.
#     card_incomplete: Fill in the card (portcullis model card).
#   controls: [soc2/cc8.1, eu-ai-act/art-14, iso-42001/a.6.2.5]
package portcullis.rules.lineage.approval

import data.portcullis.lib.models

default checked := false

checked if {
	is_string(input.request.subject_digest)
	is_string(input.request.principal.ref)
	models.readable(input.facts.model)
}

# An unregistered version is denied by name; there is nothing more to read.
checked if {
	is_string(input.request.subject_digest)
	is_string(input.request.principal.ref)
	is_object(input.facts)
	not models.found
}

grant contains "approval" if {
	checked
	count(deny) == 0
}

deny contains {"path": "model", "args": {"reason": "not_registered", "model": named}} if not models.found

deny contains {"path": "subject", "args": {"reason": "no_manifest", "model": named}} if {
	models.found
	not sealed
}

deny contains {"path": "subject", "args": args} if {
	registered := input.facts.model.manifest_digest
	input.request.subject_digest != registered
	args := {"reason": "other_digest", "model": named, "signed": input.request.subject_digest, "registered": registered}
}

deny contains {"path": "model", "args": fault} if some fault in models.uncarded(input.facts.model)

deny contains {"path": "signatures", "args": {"reason": "unknown_key"}} if not known

deny contains {"path": "signatures", "args": {"reason": "bad_signature"}} if input.facts.approver.signature_valid == false

deny contains {"path": "signatures", "args": {"reason": "key_revoked"}} if input.facts.approver.key_revoked == true

deny contains {"path": "signatures", "args": {"reason": "not_approver"}} if input.facts.approver.is_approver == false

deny contains {"path": "signatures", "args": {"reason": "other_person"}} if {
	input.facts.approver.person != input.request.principal.ref
}

deny contains {"path": "signatures", "args": {"reason": "author", "model": named}} if {
	input.facts.approver.person == input.facts.model.author
}

deny contains {"path": "signatures", "args": {"reason": "twice", "model": named}} if {
	input.facts.approver.person in models.approvers(input.facts.model)
}

named := concat("@", [input.request.model, input.request.version])

sealed if is_string(input.facts.model.manifest_digest)

known if is_object(input.facts.approver)
