# METADATA
# title: Purpose
# description: Where the card or a training dataset restricts purposes, the caller states one of them.
# custom:
#   severity: high
#   message: "the purpose of this call is not allowed"
#   messages:
#     missing: "{model} may be used only for {allowed}, and the call states no purpose"
#     not_allowed: "{model} may be used only for {allowed}, and the call is for {purpose}"
#     dataset: "{dataset}, which {model} was trained on, may be used only for {allowed}, and the call is for {purpose}"
#     dataset_missing: "{dataset}, which {model} was trained on, may be used only for {allowed}, and the call states no purpose"
#   remediation: Send one of the allowed purposes in the header X-Portcullis-Purpose, if it is true.
#   controls: [gdpr/art-5-1-b, eu-ai-act/art-13, iso-42001/a.9.4]
package portcullis.rules.gateway.purpose

import data.portcullis.lib.models

default checked := false

checked if {
	is_string(input.request.model)
	is_array(input.facts.model.card.purposes)
	is_array(input.facts.model.datasets)
}

# Without a model or its card there is no restriction to read; model-access denies that call by itself.
checked if {
	is_string(input.request.model)
	is_object(input.facts)
	not carded
}

purposes := object.get(object.get(input.facts.model, "card", {}), "purposes", [])

deny contains {"path": "purpose", "args": {"reason": "missing", "model": models.ref(input.facts.model), "allowed": purposes}} if {
	count(purposes) > 0
	not stated
}

deny contains {"path": "purpose", "args": args} if {
	count(purposes) > 0
	stated
	not input.request.purpose in purposes
	args := {
		"reason": "not_allowed",
		"model": models.ref(input.facts.model),
		"allowed": purposes,
		"purpose": input.request.purpose,
	}
}

deny contains {"path": "purpose", "args": args} if {
	some dataset in input.facts.model.datasets
	count(dataset.purposes) > 0
	not stated
	args := {
		"reason": "dataset_missing",
		"model": models.ref(input.facts.model),
		"dataset": models.ref(dataset),
		"allowed": dataset.purposes,
	}
}

deny contains {"path": "purpose", "args": args} if {
	some dataset in input.facts.model.datasets
	count(dataset.purposes) > 0
	stated
	not input.request.purpose in dataset.purposes
	args := {
		"reason": "dataset",
		"model": models.ref(input.facts.model),
		"dataset": models.ref(dataset),
		"allowed": dataset.purposes,
		"purpose": input.request.purpose,
	}
}

stated if is_string(input.request.purpose)

carded if is_object(input.facts.model.card)
