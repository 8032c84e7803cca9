package portcullis.rules.gateway.purpose_test

import data.portcullis.rules.gateway.purpose as rule

test_an_allowed_purpose if {
	count(rule.deny) == 0 with input as calling({"purpose": "search"})
}

test_another_purpose if {
	args := {"reason": "not_allowed", "model": "llama@7", "allowed": ["search"], "purpose": "ads"}
	rule.deny == {{"path": "purpose", "args": args}} with input as calling({"purpose": "ads"})
}

test_no_purpose if {
	args := {"reason": "missing", "model": "llama@7", "allowed": ["search"]}
	rule.deny == {{"path": "purpose", "args": args}} with input as calling({})
}

test_unchecked_without_the_card_s_purposes if {
	rule.checked with input as calling({})
	not rule.checked with input as object.remove(calling({}), ["facts"])
}

test_a_dataset_s_purpose if {
	trained := {"name": "web", "version": "1", "purposes": ["search"]}
	args := {"model": "llama@7", "dataset": "web@1", "allowed": ["search"]}
	missing := object.union(args, {"reason": "dataset_missing"})
	other := object.union(args, {"reason": "dataset", "purpose": "ads"})
	rule.deny == {{"path": "purpose", "args": missing}} with input as trained_on(trained, {})
	rule.deny == {{"path": "purpose", "args": other}} with input as trained_on(trained, {"purpose": "ads"})
	count(rule.deny) == 0 with input as trained_on(trained, {"purpose": "search"})
}

test_checked_without_a_card if {
	rule.checked with input as {"request": {"model": "llama"}, "facts": {}}
	count(rule.deny) == 0 with input as {"request": {"model": "llama"}, "facts": {}}
}

trained_on(dataset, request) := {
	"request": object.union({"model": "llama", "version": "7"}, request),
	"facts": {"model": {"name": "llama", "version": "7", "card": {"purposes": []}, "datasets": [dataset]}},
}

calling(request) := {
	"request": object.union({"model": "llama", "version": "7"}, request),
	"facts": {"model": {"name": "llama", "version": "7", "card": {"purposes": ["search"]}, "datasets": []}},
}
