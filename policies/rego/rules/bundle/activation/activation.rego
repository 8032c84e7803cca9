# METADATA
# title: Activation of a policy change
# description: A policy change takes effect only when enough people other than its author have approved exactly this content.
# custom:
#   severity: critical
#   message: "this change may not take effect"
#   messages:
#     not_proposed: "there is no open proposal {proposal}"
#     other_digest: "the content is {found}; what was proposed and approved is {proposed}"
#     not_approved: "{found} of {required} approvals by registered people other than the author"
#     role: "putting a policy change into effect needs the role admin or operator"
#   remediation: Have registered approvers other than the author sign it (portcullis policy bundle approve).
#   remediations:
#     not_proposed: Propose it again (portcullis policy bundle propose).
#     other_digest: Propose what you mean to run, and have that approved.
#     role: Ask an administrator or an operator of this installation.
#   controls: [soc2/cc8.1, eu-ai-act/art-14, iso-42001/a.6.2.5, nist-ai-rmf/manage-2.4]
package portcullis.rules.bundle.activation

import data.portcullis.lib.proposals

default checked := false

# A signature asks nothing of this rule; `approval` judges it.
checked if input.request.action == "approve"

checked if {
	asked
	proposals.readable
	is_number(required)
}

checked if {
	asked
	not proposals.found
}

grant contains "activation" if {
	asked
	checked
	count(deny) == 0
}

deny contains {"path": "subject", "args": {"reason": "not_proposed", "proposal": input.request.subject}} if {
	asked
	not proposals.open
}

deny contains {"path": "digest", "args": args} if {
	asked
	proposed := input.facts.proposal.digest
	input.request.digest != proposed
	args := {"reason": "other_digest", "found": input.request.digest, "proposed": proposed}
}

deny contains {"path": "approvals", "args": {"reason": "not_approved", "found": found, "required": required}} if {
	asked
	proposals.readable
	found := count(proposals.approvers)
	found < required
}

deny contains {"path": "principal", "args": {"reason": "role"}} if {
	asked
	not may
}

asked if input.request.action == "activate"

may if {
	some role in input.request.principal.roles
	role in {"admin", "operator"}
}

default required := 2

required := input.config.required_approvals
