# METADATA
# title: Grants
# description: Rights to a model that the operator gave to teams, callers or roles of the requester's tenant.
package portcullis.lib.grants

ids contains found.id if {
	some found in input.config.grants
	found.model == input.request.model
	fits(found)
	holds(found)
}

fits(found) if not versioned(found)

fits(found) if found.version == input.request.version

holds(found) if input.request.principal.team in found.teams

holds(found) if input.request.principal.ref in found.callers

holds(found) if {
	some role in input.request.principal.roles
	role in found.roles
}

versioned(found) if is_string(found.version)
