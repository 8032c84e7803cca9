package portcullis.rules.admission["namespace-isolation_test"]

import data.portcullis.rules.admission["namespace-isolation"] as rule

test_at_home if {
	count(rule.deny) == 0 with input as acting("vision")
}

test_a_controller_acts_for_others if {
	count(rule.deny) == 0 with input as acting("kube-system")
}

test_a_foreign_account_is_denied if {
	args := {"reason": "foreign_account", "namespace": "vision", "from": "search"}
	rule.deny == {{"path": "metadata.namespace", "args": args}} with input as acting("search")
}

test_unchecked_without_models if {
	rule.checked with input as acting("vision")
	not rule.checked with input as object.remove(acting("vision"), ["facts"])
}

acting(from) := {
	"request": {
		"operation": "CREATE",
		"namespace": "vision",
		"pod_path": "spec",
		"host_access": [],
		"principal": {"kind": "service_account", "namespace": from},
	},
	"facts": {"models": []},
	"config": {"team": "vision", "tenant": "acme", "controller_namespaces": ["kube-system"]},
}
