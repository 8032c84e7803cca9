package portcullis.rules.admission["gpu-quota_test"]

import data.portcullis.rules.admission["gpu-quota"] as rule

test_the_last_share_fits if {
	count(rule.deny) == 0 with input as asked(10)
}

test_one_share_more_is_denied if {
	rule.deny == {{"path": "spec", "args": {"asked": 11, "used": 90, "limit": 100}}} with input as asked(11)
}

test_deleting_is_never_denied if {
	found := object.union(asked(11), {"request": {"operation": "DELETE"}})
	count(rule.deny) == 0 with input as found
}

test_unchecked_without_usage if {
	rule.checked with input as asked(1)
	not rule.checked with input as object.remove(asked(1), ["facts"])
}

test_a_team_without_a_quota if {
	found := object.remove(asked(1), ["config"])
	rule.deny == {{"path": "spec", "args": {"reason": "no_limit", "asked": 1}}} with input as found
}

test_a_kind_that_cannot_be_counted if {
	found := object.union(asked(0), {"request": {"known_kind": false, "kind": "Sidecar"}})
	rule.deny == {{"path": "spec", "args": {"reason": "unknown_kind", "kind": "Sidecar"}}} with input as found
}

test_a_gpu_without_asking if {
	found := object.union(asked(0), {"request": {"host_access": [{"path": "c0", "kind": "gpu_without_request"}]}})
	rule.deny == {{"path": "c0", "args": {"reason": "without_request", "at": "c0"}}} with input as found
}

asked(shares) := {
	"request": {
		"operation": "CREATE",
		"pod_path": "spec",
		"gpu_shares": shares,
		"known_kind": true,
		"accelerators_found": true,
		"host_access": [],
	},
	"facts": {"quota": {"used_shares": 90}},
	"config": {"gpu_limit_shares": 100},
}
