package portcullis.lib.exemptions_test

import data.portcullis.lib.exemptions

test_one_that_counts if {
	exemptions.id("admission/mine") == "e1" with input as asked([good])
}

test_the_smallest_id_is_named if {
	exemptions.id("admission/mine") == "e0" with input as asked([good, object.union(good, {"id": "e0"})])
}

test_for_everything if {
	exemptions.id("admission/mine") == "e1" with input as asked([object.union(good, {"subjects": ["*"]})])
}

test_a_model_version_where_there_is_no_object if {
	covering := object.union(good, {"subjects": ["llama@7"]})
	config := {"exemptions": [covering]}
	found := {"now_unix": 10, "request": {"model": "llama", "version": "7"}, "config": config}
	exemptions.id("admission/mine") == "e1" with input as found
}

test_what_does_not_count if {
	every change in [
		{"rule": "admission/other"},
		{"owner": ""},
		{"reason_given": false},
		{"ticket": ""},
		{"expires_unix": 10},
		{"subjects": ["Deployment/other"]},
	] {
		not exempted with input as asked([object.union(good, change)])
	}
}

test_what_is_not_there_does_not_count if {
	every field in ["owner", "reason_given", "ticket", "expires_unix", "subjects"] {
		not exempted with input as asked([object.remove(good, [field])])
	}
}

exempted if is_string(exemptions.id("admission/mine"))

asked(list) := {"now_unix": 10, "request": {"subject": "Deployment/chat"}, "config": {"exemptions": list}}

good := {
	"id": "e1",
	"rule": "admission/mine",
	"owner": "ref",
	"reason_given": true,
	"ticket": "T-1",
	"expires_unix": 11,
	"subjects": ["Deployment/chat"],
}
