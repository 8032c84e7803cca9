"""What the operator's configuration says of each rule: its mode in general and in places, and the exemptions that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from policies.config import Document, ExemptionRule, ModeRule


@dataclass(frozen=True)
class RulesInUse:
    """`narrower`: modes for a tenant, team, namespace or model that differ from the rule's general one."""

    general: dict[str, str]
    narrower: dict[str, list[ModeRule]]
    exemptions: dict[str, list[str]]

    @classmethod
    def of(cls, document: Document, active: Sequence[ExemptionRule]) -> RulesInUse:
        """`active`: the exemptions that count now."""
        general = {mode.rule: str(mode.mode) for mode in document.modes if not _scope(mode)}
        found = cls(general, {}, {})
        for mode in document.modes:
            if _scope(mode) and mode.mode != found.mode(mode.rule):
                found.narrower.setdefault(mode.rule, []).append(mode)
        for exemption in active:
            found.exemptions.setdefault(exemption.rule, []).append(exemption.id)
        return found

    def mode(self, rule: str) -> str:
        return self.general.get(rule, "enforce")

    def about(self, rule: str) -> dict[str, Any]:
        """As data: the general mode, each narrower one with where it holds, the ids of the exemptions."""
        return {
            "mode": self.mode(rule),
            "narrower": [{"mode": one.mode, **_scope(one)} for one in self.narrower.get(rule, [])],
            "exemptions": sorted(self.exemptions.get(rule, [])),
        }


def _scope(mode: ModeRule) -> dict[str, str]:
    """Where a mode holds: what it names; nothing for a general one."""
    return mode.model_dump(mode="json", exclude={"rule", "mode"}, exclude_none=True)
