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

test_a_grant_to_a_caller_or_a_role if {
	every grant in [{"callers": ["p"]}, {"roles": ["reader"]}] {
		request := {"principal": {"team": "search", "roles": ["reader"]}}
		config := {"grants": [object.union({"id": "g2", "model": "llama", "version": "7"}, grant)]}
		rule.grant == {"g2"} with input as object.union(calling("search"), {"request": request, "config": config})
	}
}

test_a_model_that_is_not_registered if {
	found := object.union(object.remove(calling("vision"), ["facts"]), {"facts": {}})
	rule.deny == {{"path": "model", "args": {"reason": "not_registered", "model": "llama@7"}}} with input as found
	rule.checked with input as found
}

test_a_model_of_another_tenant if {
	found := object.union(calling("vision"), {"request": {"principal": {"tenant": "other"}}})
	rule.deny == {{"path": "model", "args": {"reason": "foreign_tenant", "model": "llama@7"}}} with input as found
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
