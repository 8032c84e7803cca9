# METADATA
# title: Proposed policy changes
# description: What is known of the change that a request is about, and who approved exactly its content.
package portcullis.lib.proposals

found if is_object(input.facts.proposal)

# Everything that the rules read of it is there.
readable if {
	is_string(input.facts.proposal.digest)
	is_string(input.facts.proposal.author)
	is_string(input.facts.proposal.state)
	is_array(input.facts.proposal.approvals)
}

open if input.facts.proposal.state == "open"

# People, not signatures, and never the author.
approvers := {approval.person |
	some approval in input.facts.proposal.approvals
	approval.digest == input.facts.proposal.digest
	approval.person != input.facts.proposal.author
}
