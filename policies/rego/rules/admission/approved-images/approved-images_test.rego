package portcullis.rules.admission["approved-images_test"]

import data.portcullis.rules.admission["approved-images"] as rule

test_below_an_approved_repository if {
	count(rule.deny) == 0 with input as running("ml/serve")
}

test_a_longer_name_is_another_repository if {
	rule.deny == {{"path": "c0", "args": {"image": "r.example/mlx", "container": "serve"}}} with input as running("mlx")
}

test_unchecked_without_containers if {
	rule.checked with input as running("ml")
	not rule.checked with input as {"request": {}}
}

running(repository) := {
	"request": {"operation": "CREATE", "containers": [{
		"path": "c0",
		"name": "serve",
		"image": {"registry": "r.example", "repository": repository},
	}]},
	"config": {"images": [{"registry": "r.example", "repository": "ml"}]},
}
