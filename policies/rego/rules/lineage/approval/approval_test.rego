package portcullis.rules.lineage.approval_test

import data.portcullis.rules.lineage.approval as rule

test_a_third_person if {
	rule.grant == {"approval"} with input as signed("c")
	count(rule.deny) == 0 with input as signed("c")
}

test_the_same_person_with_another_key if {
	rule.deny == {{"path": "signatures", "args": {"reason": "twice", "model": "llama@7"}}} with input as signed("a")
	count(rule.grant) == 0 with input as signed("a")
}

test_the_author if {
	rule.deny == {{"path": "signatures", "args": {"reason": "author", "model": "llama@7"}}} with input as signed("author")
}

test_unchecked_without_approvals if {
	rule.checked with input as signed("c")
	not rule.checked with input as object.union(object.remove(signed("c"), ["facts"]), {"facts": {"model": object.remove(fit, ["approvals"])}})
}

signed(person) := {
	"request": {"model": "llama", "version": "7", "subject_digest": "d", "principal": {"ref": person}},
	"facts": {
		"approver": {"person": person, "signature_valid": true, "key_revoked": false, "is_approver": true},
		"model": fit,
	},
}

fit := {
	"name": "llama",
	"version": "7",
	"tenant": "acme",
	"author": "author",
	"manifest_digest": "d",
	"card": {"complete": true, "missing": [], "purposes": []},
	"approvals": [
		{"person": "a", "manifest_digest": "d"},
		{"person": "b", "manifest_digest": "d"},
	],
	"datasets": [{"name": "web", "version": "1", "consent": "given", "purposes": []}],
	"revoked": false,
}
