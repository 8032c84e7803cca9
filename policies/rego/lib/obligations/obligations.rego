# METADATA
# title: Obligations
# description: What a door must do when it allows; the operator's configuration adds to the fixed part.
package portcullis.lib.obligations

obligations := object.union(fixed, configured)

fixed := {"redact_request": false, "redact_response": false, "redact_log": true, "headers": {}}

configured := {name: value |
	some name, value in input.config.obligations
	name in {"max_tokens", "log_retention_days", "headers"}
}
