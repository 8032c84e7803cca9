package portcullis.rules.admission["approved-model_test"]

import data.portcullis.rules.admission["approved-model"] as rule

test_two_people_approved if {
	count(rule.deny) == 0 with input as using(fit)
}

test_one_person_twice_is_one if {
	once := object.union(fit, {"approvals": [
		{"person": "a", "manifest_digest": "d"},
		{"person": "a", "manifest_digest": "d"},
	]})
	args := {"reason": "not_approved", "model": "llama@7", "found": 1, "required": 2}
	rule.deny == {{"path": "spec", "args": args}} with input as using(once)
}

test_consent_withdrawn if {
	withdrawn := object.union(fit, {"datasets": [{"name": "web", "version": "1", "consent": "withdrawn"}]})
	args := {"reason": "consent_withdrawn", "model": "llama@7", "dataset": "web@1"}
	rule.deny == {{"path": "spec", "args": args}} with input as using(withdrawn)
}

test_unchecked_when_a_model_cannot_be_read if {
	rule.checked with input as using(fit)
	not rule.checked with input as using(object.remove(fit, ["revoked"]))
}

using(model) := {
	"request": {
		"operation": "CREATE",
		"gpu_shares": 1,
		"pod_path": "spec",
		"models": [{"path": "m", "name": "llama", "version": "7"}],
	},
	"facts": {"models": [model]},
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
