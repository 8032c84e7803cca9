# METADATA
# title: Model versions
# description: What makes a registered version unfit for use, the same at every door.
package portcullis.lib.models

# Everything that the faults below read is there.
readable(model) if {
	is_boolean(model.revoked)
	is_array(model.approvals)
	is_array(model.datasets)
}

ref(model) := concat("@", [model.name, model.version])

# People, not signatures: one person with two keys is one approver.
approvers(model) := {approval.person |
	some approval in model.approvals
	approval.manifest_digest == model.manifest_digest
}

default required := 2

required := input.config.required_approvals

# Why this version may not be used, as the args of a violation each.
faults(model) := ((revoked(model) | unapproved(model)) | uncarded(model)) | withdrawn(model)

revoked(model) := {{"reason": "revoked", "model": ref(model)} | not in_force(model)}

unapproved(model) := {{"reason": "not_approved", "model": ref(model), "found": found, "required": required} |
	found := count(approvers(model))
	found < required
}

uncarded(model) := {{"reason": "card_incomplete", "model": ref(model), "missing": missing(model)} |
	not documented(model)
}

missing(model) := object.get(object.get(model, "card", {}), "missing", ["the whole card"])

withdrawn(model) := {{"reason": "consent_withdrawn", "model": ref(model), "dataset": ref(dataset)} |
	some dataset in model.datasets
	dataset.consent == "withdrawn"
}

in_force(model) if model.revoked == false

documented(model) if model.card.complete == true

# The version that the request is about is registered, and in this tenant.
found if is_object(input.facts.model)

ours if input.facts.model.tenant == input.request.principal.tenant
