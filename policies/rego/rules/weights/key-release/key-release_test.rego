package portcullis.rules.weights["key-release_test"]

import data.portcullis.rules.weights["key-release"] as rule

test_a_grant_for_the_registered_manifest if {
	rule.grant == {"g1"} with input as asking("d")
	count(rule.deny) == 0 with input as asking("d")
}

test_another_manifest if {
	args := {"reason": "other_digest", "model": "llama@7", "asked": "e"}
	rule.deny == {{"path": "manifest", "args": args}} with input as asking("e")
}

test_unchecked_when_the_model_cannot_be_read if {
	rule.checked with input as asking("d")
	not rule.checked with input as object.union(object.remove(asking("d"), ["facts"]), {"facts": {"model": object.remove(fit, ["approvals"])}})
}

test_a_model_that_is_not_registered if {
	found := object.remove(asking("d"), ["facts"])
	rule.deny == {{"path": "model", "args": {"reason": "not_registered", "model": "llama@7"}}} with input as found
	rule.checked with input as object.union(found, {"facts": {}})
}

test_a_model_of_another_tenant if {
	found := object.union(asking("d"), {"request": {"principal": {"tenant": "other"}}})
	rule.deny == {{"path": "model", "args": {"reason": "foreign_tenant", "model": "llama@7"}}} with input as found
}

test_a_revoked_model if {
	found := object.union(asking("d"), {"facts": {"model": {"revoked": true}}})
	rule.deny == {{"path": "model", "args": {"reason": "revoked", "model": "llama@7"}}} with input as found
}

asking(digest) := {
	"request": {
		"model": "llama",
		"version": "7",
		"manifest_digest": digest,
		"principal": {"ref": "p", "tenant": "acme", "team": "vision", "roles": []},
	},
	"facts": {"model": fit},
	"config": {"grants": [{"id": "g1", "model": "llama", "teams": ["vision"]}]},
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
