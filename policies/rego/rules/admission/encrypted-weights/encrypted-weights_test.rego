package portcullis.rules.admission["encrypted-weights_test"]

import data.portcullis.rules.admission["encrypted-weights"] as rule

test_the_registered_manifest if {
	count(rule.deny) == 0 with input as loading({"path": "w", "scheme": "sealed", "sealed": true, "manifest_digest": "d"})
}

test_weights_in_the_clear if {
	args := {"reason": "plain", "at": "w", "scheme": "s3"}
	rule.deny == {{"path": "w", "args": args}} with input as loading({"path": "w", "scheme": "s3", "sealed": false})
}

test_another_manifest if {
	args := {"reason": "unknown_digest", "at": "w", "digest": "e"}
	use := {"path": "w", "scheme": "sealed", "sealed": true, "manifest_digest": "e"}
	rule.deny == {{"path": "w", "args": args}} with input as loading(use)
}

test_unchecked_without_weights if {
	rule.checked with input as loading({})
	not rule.checked with input as {"request": {"gpu_shares": 1, "models": []}, "facts": {"models": []}}
}

test_a_sealed_place_without_its_digest if {
	use := {"path": "w", "scheme": "sealed", "sealed": true}
	rule.deny == {{"path": "w", "args": {"reason": "no_digest", "at": "w"}}} with input as loading(use)
}

test_a_model_without_weights if {
	found := object.union(loading({}), {"request": {"weights": []}})
	rule.deny == {{"path": "spec", "args": {"reason": "no_weights"}}} with input as found
}

loading(use) := {
	"request": {
		"operation": "CREATE",
		"gpu_shares": 1,
		"pod_path": "spec",
		"models": [{"path": "m", "name": "llama", "version": "7"}],
		"weights": [use],
	},
	"facts": {"models": [{"name": "llama", "version": "7", "manifest_digest": "d"}]},
}
