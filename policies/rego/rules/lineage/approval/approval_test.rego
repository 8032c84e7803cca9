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

test_a_model_that_is_not_registered if {
	found := object.union(object.remove(signed("c"), ["facts"]), {"facts": {"approver": signed("c").facts.approver}})
	rule.deny == {{"path": "model", "args": {"reason": "not_registered", "model": "llama@7"}}} with input as found
	rule.checked with input as found
}

test_a_version_without_a_manifest if {
	model := object.remove(fit, ["manifest_digest", "approvals"])
	facts := {"approver": signed("c").facts.approver, "model": object.union(model, {"approvals": []})}
	found := object.union(object.remove(signed("c"), ["facts"]), {"facts": facts})
	rule.deny == {{"path": "subject", "args": {"reason": "no_manifest", "model": "llama@7"}}} with input as found
}

test_a_statement_about_another_manifest if {
	args := {"reason": "other_digest", "model": "llama@7", "signed": "e", "registered": "d"}
	found := object.union(signed("c"), {"request": {"subject_digest": "e"}})
	rule.deny == {{"path": "subject", "args": args}} with input as found
}

test_an_incomplete_card if {
	args := {"reason": "card_incomplete", "model": "llama@7", "missing": ["purpose"]}
	found := object.union(signed("c"), {"facts": {"model": {"card": {"complete": false, "missing": ["purpose"]}}}})
	rule.deny == {{"path": "model", "args": args}} with input as found
}

test_a_key_that_nobody_registered if {
	found := object.union(object.remove(signed("c"), ["facts"]), {"facts": {"model": fit}})
	rule.deny == {{"path": "signatures", "args": {"reason": "unknown_key"}}} with input as found
}

test_what_is_wrong_with_a_signature if {
	every reason, fact in {
		"bad_signature": {"signature_valid": false},
		"key_revoked": {"key_revoked": true},
		"not_approver": {"is_approver": false},
		"other_person": {"person": "d"},
	} {
		found := object.union(signed("c"), {"facts": {"approver": fact}})
		rule.deny == {{"path": "signatures", "args": {"reason": reason}}} with input as found
	}
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
