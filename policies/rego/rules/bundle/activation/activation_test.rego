package portcullis.rules.bundle.activation_test

import data.portcullis.rules.bundle.activation as rule

test_two_people if {
	rule.grant == {"activation"} with input as asked(["a", "b"])
	count(rule.deny) == 0 with input as asked(["a", "b"])
}

test_one_person if {
	args := {"reason": "not_approved", "found": 1, "required": 2}
	rule.deny == {{"path": "approvals", "args": args}} with input as asked(["a"])
	count(rule.grant) == 0 with input as asked(["a"])
}

test_one_person_and_the_author if {
	args := {"reason": "not_approved", "found": 1, "required": 2}
	rule.deny == {{"path": "approvals", "args": args}} with input as asked(["a", "author"])
}

test_three_where_three_are_needed if {
	three := object.union(asked(["a", "b"]), {"config": {"required_approvals": 3}})
	args := {"reason": "not_approved", "found": 2, "required": 3}
	rule.deny == {{"path": "approvals", "args": args}} with input as three
}

test_other_content if {
	args := {"reason": "other_digest", "found": "e", "proposed": "d"}
	rule.deny == {{"path": "digest", "args": args}} with input as object.union(asked(["a", "b"]), {"request": {"digest": "e"}})
}

test_withdrawn if {
	args := {"reason": "not_proposed", "proposal": "p1"}
	rule.deny == {{"path": "subject", "args": args}} with input as object.union(asked(["a", "b"]), {"facts": {"proposal": {"state": "withdrawn"}}})
}

test_never_proposed if {
	denied := rule.deny with input as object.union(object.remove(asked(["a", "b"]), ["facts"]), {"facts": {}})
	denied == {{"path": "subject", "args": {"reason": "not_proposed", "proposal": "p1"}}}
	rule.checked with input as object.union(object.remove(asked(["a", "b"]), ["facts"]), {"facts": {}})
}

test_an_auditor if {
	roles := {"request": {"principal": {"roles": ["auditor"]}}}
	rule.deny == {{"path": "principal", "args": {"reason": "role"}}} with input as object.union(asked(["a", "b"]), roles)
}

test_two_where_nothing_is_configured if {
	rule.grant == {"activation"} with input as object.remove(asked(["a", "b"]), ["config"])
	count(rule.deny) == 1 with input as object.remove(asked(["a"]), ["config"])
}

test_nothing_to_say_to_a_signature if {
	signed := {"request": {"action": "approve", "digest": "d", "principal": {"ref": "a"}}, "facts": {}}
	rule.checked with input as signed
	count(rule.deny) == 0 with input as signed
	count(rule.grant) == 0 with input as signed
}

asked(people) := {
	"request": {"action": "activate", "subject": "p1", "digest": "d", "principal": {"ref": "op", "roles": ["operator"]}},
	"facts": {"proposal": {
		"digest": "d",
		"author": "author",
		"state": "open",
		"approvals": [{"person": person, "digest": "d"} | some person in people],
	}},
	"config": {"required_approvals": 2},
}
