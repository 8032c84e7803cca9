package portcullis.rules.weights.frozen_test

import data.portcullis.rules.weights.frozen as rule

test_nothing_is_frozen if {
	rule.checked with input as stopped([])
	count(rule.deny) == 0 with input as stopped([])
}

test_each_freeze_is_a_reason if {
	found := [{"kind": "model", "subject": "llama@7", "since_unix": 5}, {"kind": "caller", "subject": "p", "since_unix": 6}]
	rule.deny == {
		{"path": "config.frozen", "args": {"reason": "model", "subject": "llama@7", "since_unix": 5}},
		{"path": "config.frozen", "args": {"reason": "caller", "subject": "p", "since_unix": 6}},
	} with input as stopped(found)
}

test_unchecked_when_the_freezes_cannot_be_read if {
	not rule.checked with input as {"config": {}}
	not rule.checked with input as stopped([{"kind": "model", "subject": "llama@7"}])
	not rule.checked with input as stopped([{"kind": "model", "since_unix": 5}])
	not rule.checked with input as stopped([{"subject": "llama@7", "since_unix": 5}])
}

stopped(found) := {"config": {"frozen": found}}
