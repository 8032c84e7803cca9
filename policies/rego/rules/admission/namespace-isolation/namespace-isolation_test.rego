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

test_a_namespace_of_no_team if {
	found := object.remove(acting("vision"), ["config"])
	args := {"reason": "no_team", "namespace": "vision"}
	rule.deny == {{"path": "metadata.namespace", "args": args}} with input as found
}

test_a_path_of_the_node if {
	found := object.union(acting("vision"), {"request": {"host_access": [{"path": "v0", "kind": "host_path"}]}})
	rule.deny == {{"path": "v0", "args": {"reason": "host_access", "at": "v0", "kind": "host_path"}}} with input as found
}

test_administrators_access_to_devices if {
	found := object.union(acting("vision"), {"request": {"host_access": [{"path": "r0", "kind": "device_admin"}]}})
	rule.deny == {{"path": "r0", "args": {"reason": "host_access", "at": "r0", "kind": "device_admin"}}} with input as found
}

test_a_model_of_another_tenant if {
	model := {"name": "llama", "version": "7", "tenant": "other"}
	found := object.union(acting("vision"), {"facts": {"models": [model]}})
	rule.deny == {{"path": "spec", "args": {"reason": "foreign_model", "model": "llama@7"}}} with input as found
	ours := object.union(acting("vision"), {"facts": {"models": [object.union(model, {"tenant": "acme"})]}})
	count(rule.deny) == 0 with input as ours
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
