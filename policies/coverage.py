"""What real traffic shows of the rules: how often each was evaluated and spoke, which never does, which always does; and each
exemption's uses. Counted from decisions as the evidence log keeps them, in one pass; what stays in memory is a count per rule and id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.decision import DOMAINS
from policies.catalogue import Catalogue

State = Literal["never evaluated", "never fired", "always fires", "fires", "not in force"]


@dataclass
class RuleTraffic:
    """Decisions, not entries: a rule that denies one request for three reasons has denied once.

    `evaluated`: it was checked, or it spoke without being. `fired`: it found something, whatever came of it.
    """

    rule: str
    in_force: bool = True
    evaluated: int = 0
    fired: int = 0
    denied: int = 0
    warned: int = 0
    dryrun: int = 0
    exempted: int = 0
    last_fired_unix: int | None = None

    @property
    def share(self) -> float | None:
        """Of the decisions that it was evaluated in, those in which it found something; None where there was none."""
        return self.fired / self.evaluated if self.evaluated else None

    @property
    def state(self) -> State:
        if not self.in_force:
            return "not in force"
        if not self.evaluated:
            return "never evaluated"
        if not self.fired:
            return "never fired"
        return "always fires" if self.fired == self.evaluated else "fires"

    def as_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "state": self.state,
            "evaluated": self.evaluated,
            "fired": self.fired,
            "denied": self.denied,
            "warned": self.warned,
            "dryrun": self.dryrun,
            "exempted": self.exempted,
            "share": self.share,
            "last_fired_unix": self.last_fired_unix,
        }


@dataclass
class Uses:
    """In how many decisions an exemption covered something, and when last."""

    count: int = 0
    last_unix: int | None = None


@dataclass
class Traffic:
    """`others`: denials that no rule made (the input's type, a missing grant, a failing engine, a door by itself), by reason."""

    rules: dict[str, RuleTraffic]
    decisions: int = 0
    others: Counter[str] = field(default_factory=Counter)
    exemptions: dict[str, Uses] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "decisions": self.decisions,
            "rules": [self.rules[name].as_json() for name in sorted(self.rules)],
            "others": dict(sorted(self.others.items())),
            "exemptions": {
                name: {"uses": uses.count, "last_unix": uses.last_unix} for name, uses in sorted(self.exemptions.items())
            },
        }


_MODES = {"enforce": "denied", "warn": "warned", "dryrun": "dryrun", "exempted": "exempted"}


def count(decisions: Iterable[tuple[int, Mapping[str, Any]]], catalogue: Catalogue) -> Traffic:
    """The traffic of these decisions (time in Unix seconds, document). Rules of `catalogue` that nothing asked stand with zeros;
    a rule that was on record and is not in it any more is `not in force`.
    """
    traffic = Traffic({rule.id: RuleTraffic(rule.id) for rule in catalogue.rules()})
    for time, decision in decisions:
        traffic.decisions += 1
        _add(traffic, time, decision)
    return traffic


def _add(traffic: Traffic, time: int, decision: Mapping[str, Any]) -> None:
    entries = [*decision["violations"], *decision["warnings"]]
    modes: dict[str, set[str]] = {}
    for entry in entries:
        modes.setdefault(entry["rule"], set()).add(_MODES[entry["mode"]])
    for name in {*decision["evaluated"], *modes}:
        if name.partition("/")[0] not in DOMAINS:
            traffic.others[name] += 1
            continue
        rule = traffic.rules.setdefault(name, RuleTraffic(name, in_force=False))
        rule.evaluated += 1
        for outcome in modes.get(name, ()):
            setattr(rule, outcome, getattr(rule, outcome) + 1)
        if name in modes:
            rule.fired += 1
            rule.last_fired_unix = max(time, rule.last_fired_unix or 0)
    for used in {entry["exemption"] for entry in entries if entry.get("exemption")}:
        uses = traffic.exemptions.setdefault(used, Uses())
        uses.count += 1
        uses.last_unix = max(time, uses.last_unix or 0)
