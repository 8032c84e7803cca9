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

required := object.get(input.config, "required_approvals", 2)

# Why this version may not be used, as the args of a violation each.
faults(model) := ((revoked(model) | unapproved(model)) | uncarded(model)) | withdrawn(model)

revoked(model) := {{"reason": "revoked", "model": ref(model)} | not model.revoked == false}

unapproved(model) := {{"reason": "not_approved", "model": ref(model), "found": found, "required": required} |
	found := count(approvers(model))
	found < required
}

uncarded(model) := {{"reason": "card_incomplete", "model": ref(model), "missing": missing(model)} |
	not model.card.complete == true
}

missing(model) := object.get(object.get(model, "card", {}), "missing", ["the whole card"])

withdrawn(model) := {{"reason": "consent_withdrawn", "model": ref(model), "dataset": ref(dataset)} |
	some dataset in model.datasets
	dataset.consent == "withdrawn"
}
