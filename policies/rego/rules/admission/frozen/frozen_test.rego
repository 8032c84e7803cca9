package portcullis.rules.admission.frozen_test

import data.portcullis.rules.admission.frozen as rule

test_nothing_is_frozen if {
	rule.checked with input as stopped([])
	count(rule.deny) == 0 with input as stopped([])
}

test_each_freeze_is_a_reason if {
	found := [llama, {"kind": "tenant", "subject": "acme", "since_unix": 6}]
	rule.deny == {
		{"path": "spec", "args": {"reason": "model", "subject": "llama@7", "since_unix": 5}},
		{"path": "spec", "args": {"reason": "tenant", "subject": "acme", "since_unix": 6}},
	} with input as stopped(found)
}

test_deleting_and_what_runs_nothing_go_on if {
	count(rule.deny) == 0 with input as object.union(stopped([llama]), {"request": {"operation": "DELETE"}})
	count(rule.deny) == 0 with input as object.union(stopped([llama]), {"request": {"containers": []}})
}

test_what_holds_an_accelerator_without_a_container_is_stopped if {
	count(rule.deny) == 1 with input as object.union(stopped([llama]), {"request": {"containers": [], "gpu_shares": 1}})
	count(rule.deny) == 1 with input as object.union(stopped([llama]), {"request": {"containers": [], "accelerators_found": true}})
}

test_unchecked_when_something_cannot_be_read if {
	not rule.checked with input as object.remove(stopped([]), ["config"])
	not rule.checked with input as object.remove(stopped([]), ["request"])
	not rule.checked with input as stopped([{"kind": "model", "subject": "llama@7"}])
}

llama := {"kind": "model", "subject": "llama@7", "since_unix": 5}

stopped(found) := {
	"request": {
		"operation": "CREATE",
		"containers": [{"path": "c"}],
		"gpu_shares": 0,
		"accelerators_found": false,
		"pod_path": "spec",
	},
	"config": {"frozen": found},
}
