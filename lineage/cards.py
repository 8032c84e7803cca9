"""Model cards: what must stand in one, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import BadInput
from lineage import fields

MANDATORY = ("title", "limitations", "training_data", "evaluation", "contact", "risk_class")
"""Text fields without which a card is not complete (EU AI Act, Annex IV 1 and 2, in short)."""

PURPOSES = "intended_purposes"


def read_card(value: Any) -> dict[str, Any]:
    """A card as it is kept: known fields only. BadInput for anything else."""
    if not isinstance(value, Mapping):
        raise BadInput("a card is a mapping of fields", where="card")
    unknown = sorted(str(key) for key in value.keys() - {*MANDATORY, PURPOSES})
    if unknown:
        raise BadInput(
            f"{unknown[0][:80]!r} is no field of a card; known are {', '.join((*MANDATORY, PURPOSES))}", where="card"
        )
    card: dict[str, Any] = {name: fields.text(value[name], name) for name in MANDATORY if name in value}
    if PURPOSES in value:
        card[PURPOSES] = fields.names(value[PURPOSES], PURPOSES)
    return card


def missing(card: Mapping[str, Any]) -> list[str]:
    """The mandatory fields that are absent or blank; `intended_purposes` must name at least one."""
    return [name for name in (*MANDATORY, PURPOSES) if not card.get(name)]
