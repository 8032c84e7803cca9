package portcullis.rules.bundle.approval_test

import data.portcullis.rules.bundle.approval as rule

test_a_registered_person if {
	rule.grant == {"approval"} with input as signed("c")
	count(rule.deny) == 0 with input as signed("c")
}

test_the_same_person_again if {
	rule.deny == {{"path": "signatures", "args": {"reason": "twice"}}} with input as signed("a")
	count(rule.grant) == 0 with input as signed("a")
}

test_the_author if {
	rule.deny == {{"path": "signatures", "args": {"reason": "author"}}} with input as signed("author")
}

test_nothing_to_say_to_an_activation if {
	asked := {"request": {"action": "activate", "digest": "d", "principal": {"ref": "a"}}, "facts": {}}
	rule.checked with input as asked
	count(rule.deny) == 0 with input as asked
	count(rule.grant) == 0 with input as asked
}

test_each_reason_by_itself if {
	every case in [
		{"reason": "bad_signature", "approver": {"signature_valid": false}},
		{"reason": "key_revoked", "approver": {"key_revoked": true}},
		{"reason": "not_approver", "approver": {"is_approver": false}},
		{"reason": "other_person", "approver": {"person": "x"}},
	] {
		found := object.union(signed("c"), {"facts": {"approver": case.approver}})
		denied := rule.deny with input as found
		denied == {{"path": "signatures", "args": {"reason": case.reason}}}
	}
}

test_an_unknown_key if {
	rule.deny == {{"path": "signatures", "args": {"reason": "unknown_key"}}} with input as {
		"request": signed("c").request,
		"facts": {"proposal": proposal},
	}
}

test_other_content if {
	args := {"reason": "other_digest", "signed": "e", "proposed": "d"}
	rule.deny == {{"path": "subject", "args": args}} with input as object.union(signed("c"), {"request": {"digest": "e"}})
}

test_nothing_proposed if {
	denied := rule.deny with input as {"request": signed("c").request, "facts": {"approver": signed("c").facts.approver}}
	denied == {{"path": "subject", "args": {"reason": "not_proposed", "proposal": "p1"}}}
	rule.checked with input as {"request": signed("c").request, "facts": {}}
}

test_unchecked_without_approvals if {
	rule.checked with input as signed("c")
	not rule.checked with input as object.union(object.remove(signed("c"), ["facts"]), {"facts": {"proposal": object.remove(proposal, ["approvals"])}})
}

signed(person) := {
	"request": {"action": "approve", "subject": "p1", "digest": "d", "principal": {"ref": person}},
	"facts": {
		"approver": {"person": person, "signature_valid": true, "key_revoked": false, "is_approver": true},
		"proposal": proposal,
	},
}

proposal := {
	"digest": "d",
	"author": "author",
	"state": "open",
	"approvals": [{"person": "a", "digest": "d"}],
}
