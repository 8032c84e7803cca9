# METADATA
# title: Exemptions
# description: A permission to break one rule counts only with owner, reason, ticket, an expiry ahead and this subject.
package portcullis.lib.exemptions

# The smallest id of the exemptions that count for `rule`; undefined when there is none.
id(rule) := sort([found.id | some found in input.config.exemptions; found.rule == rule; counts(found)])[0]

counts(found) if {
	given(found.owner)
	found.reason_given == true
	given(found.ticket)
	found.expires_unix > input.now_unix
	covers(found)
}

given(text) if not text in {"", null}

covers(found) if "*" in found.subjects

covers(found) if subject in found.subjects

# An admission names its object; every other domain a model version.
subject := object.get(input.request, "subject", concat("@", [
	object.get(input.request, "model", ""),
	object.get(input.request, "version", ""),
]))
