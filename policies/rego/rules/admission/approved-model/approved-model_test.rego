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

test_no_model_named if {
	found := object.union(using(fit), {"request": {"models": []}, "facts": {"models": []}})
	rule.deny == {{"path": "spec", "args": {"reason": "no_model"}}} with input as found
}

test_what_grows_pods_of_another_object_names_no_model if {
	found := object.union(using(fit), {"request": {"models": []}, "facts": {"models": []}})
	every grower in [["autoscaling", "Scale"], ["autoscaling", "HorizontalPodAutoscaler"], ["keda.sh", "ScaledObject"]] {
		rule.deny == set() with input as object.union(found, {"request": {"group": grower[0], "kind": grower[1]}})
	}
	every other in [["apps", "Scale"], ["autoscaling", "Job"], ["keda.sh", "ScaledJob"], ["apps", "ScaledObject"]] {
		count(rule.deny) == 1 with input as object.union(found, {"request": {"group": other[0], "kind": other[1]}})
	}
}

test_a_name_that_cannot_be_read if {
	found := object.union(using(fit), {"request": {"models": [{"path": "m"}]}})
	rule.deny == {{"path": "m", "args": {"reason": "unreadable", "at": "m"}}} with input as found
}

test_a_model_that_is_not_registered if {
	found := object.union(using(fit), {"facts": {"models": []}})
	rule.deny == {{"path": "m", "args": {"reason": "not_registered", "model": "llama@7"}}} with input as found
}

test_an_incomplete_card if {
	args := {"reason": "card_incomplete", "model": "llama@7", "missing": ["purpose"]}
	found := using(object.union(fit, {"card": {"complete": false, "missing": ["purpose"]}}))
	rule.deny == {{"path": "spec", "args": args}} with input as found
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
