# METADATA
# title: Approval of a policy change
# description: A signature counts for a policy change when a registered approver, not its author, signed exactly this content, once.
# custom:
#   severity: critical
#   message: "this approval does not count"
#   messages:
#     not_proposed: "there is no open proposal {proposal}"
#     other_digest: "the statement is about {signed}; the proposal is {proposed}"
#     unknown_key: "the signing key is not registered"
#     bad_signature: "the signature is not valid"
#     key_revoked: "the signing key is revoked"
#     not_approver: "the signer does not hold the role approver"
#     other_person: "the statement is signed by somebody else than the one who submits it"
#     author: "who proposed the change cannot approve it"
#     twice: "this person has approved this change already; another person is needed"
#   remediation: Have another registered approver look at the change and sign it (portcullis policy bundle approve).
#   remediations:
#     not_proposed: List what is open with portcullis policy bundle list.
#     unknown_key: Have an administrator register the approver (portcullis identity approver add).
#   controls: [soc2/cc8.1, eu-ai-act/art-14, iso-42001/a.6.2.5]
package portcullis.rules.bundle.approval

import data.portcullis.lib.proposals

default checked := false

# An activation asks nothing of this rule; `activation` judges it.
checked if input.request.action == "activate"

checked if {
	asked
	proposals.readable
}

checked if {
	asked
	not proposals.found
}

grant contains "approval" if {
	asked
	checked
	count(deny) == 0
}

deny contains {"path": "subject", "args": {"reason": "not_proposed", "proposal": input.request.subject}} if {
	asked
	not proposals.open
}

deny contains {"path": "subject", "args": args} if {
	asked
	proposed := input.facts.proposal.digest
	input.request.digest != proposed
	args := {"reason": "other_digest", "signed": input.request.digest, "proposed": proposed}
}

deny contains {"path": "signatures", "args": {"reason": "unknown_key"}} if {
	asked
	not known
}

deny contains {"path": "signatures", "args": {"reason": "bad_signature"}} if {
	asked
	input.facts.approver.signature_valid == false
}

deny contains {"path": "signatures", "args": {"reason": "key_revoked"}} if {
	asked
	input.facts.approver.key_revoked == true
}

deny contains {"path": "signatures", "args": {"reason": "not_approver"}} if {
	asked
	input.facts.approver.is_approver == false
}

deny contains {"path": "signatures", "args": {"reason": "other_person"}} if {
	asked
	input.facts.approver.person != input.request.principal.ref
}

deny contains {"path": "signatures", "args": {"reason": "author"}} if {
	asked
	input.facts.approver.person == input.facts.proposal.author
}

deny contains {"path": "signatures", "args": {"reason": "twice"}} if {
	asked
	input.facts.approver.person in proposals.approvers
}

asked if input.request.action == "approve"

known if is_object(input.facts.approver)
