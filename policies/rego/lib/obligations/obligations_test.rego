package portcullis.lib.obligations_test

import data.portcullis.lib.obligations

fixed := {"redact_request": false, "redact_response": false, "redact_log": true, "headers": {}}

test_the_fixed_part if {
	obligations.obligations == fixed with input as {"config": {}}
}

test_the_operator_adds_and_takes_nothing_away if {
	given := {"max_tokens": 5, "log_retention_days": 30, "headers": {"x-a": "b"}, "redact_log": false}
	expected := object.union(fixed, {"max_tokens": 5, "log_retention_days": 30, "headers": {"x-a": "b"}})
	obligations.obligations == expected with input as {"config": {"obligations": given}}
}
