package portcullis.rules.gateway["model-access_test"]

import data.portcullis.rules.gateway["model-access"] as rule

test_a_grant_to_the_team if {
	rule.grant == {"g1"} with input as calling("vision")
	count(rule.deny) == 0 with input as calling("vision")
}

test_no_grant_to_another_team if {
	count(rule.grant) == 0 with input as calling("search")
}

test_a_revoked_model if {
	found := object.union(calling("vision"), {"facts": {"model": {"revoked": true}}})
	rule.deny == {{"path": "model", "args": {"reason": "revoked", "model": "llama@7"}}} with input as found
}

test_unchecked_when_the_model_cannot_be_read if {
	rule.checked with input as calling("vision")
	not rule.checked with input as object.union(object.remove(calling("vision"), ["facts"]), {"facts": {"model": object.remove(fit, ["datasets"])}})
}

calling(team) := {
	"request": {"model": "llama", "version": "7", "principal": {"ref": "p", "tenant": "acme", "team": team, "roles": []}},
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
