# METADATA
# title: Freezes
# description: Emergency stops that concern the request; each of them denies, whatever else allows.
package portcullis.lib.freezes

# Everything that a reason below reads is there.
readable if {
	is_array(input.config.frozen)
	every stop in input.config.frozen {
		is_string(stop.kind)
		is_string(stop.subject)
		is_number(stop.since_unix)
	}
}

# Only the stops that concern this request travel in it, so each of them counts.
reasons contains {"reason": stop.kind, "subject": stop.subject, "since_unix": stop.since_unix} if {
	some stop in input.config.frozen
}
