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

test_an_image_that_cannot_be_read if {
	found := object.union(running("ml"), {"request": {"containers": [{"path": "c0", "name": "serve"}]}})
	rule.deny == {{"path": "c0", "args": {"reason": "unreadable", "container": "serve"}}} with input as found
}

test_a_digest_where_the_operator_asks_for_one if {
	asked := object.union(running("ml"), {"config": {"require_image_digest": true}})
	args := {"reason": "no_digest", "image": "r.example/ml", "container": "serve"}
	rule.deny == {{"path": "c0", "args": args}} with input as asked
	image := {"registry": "r.example", "repository": "ml", "digest": "sha256:d"}
	pinned := object.union(asked, {"request": {"containers": [{"path": "c0", "name": "serve", "image": image}]}})
	count(rule.deny) == 0 with input as pinned
}

running(repository) := {
	"request": {"operation": "CREATE", "containers": [{
		"path": "c0",
		"name": "serve",
		"image": {"registry": "r.example", "repository": repository},
	}]},
	"config": {"images": [{"registry": "r.example", "repository": "ml"}]},
}
