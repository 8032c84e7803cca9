"""One pass over the log gathers what every query of a report asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SETTLE_SECONDS = 1
"""A withdrawal, freeze or revocation is in force at every door within this time."""


@dataclass(frozen=True, slots=True)
class Use:
    """One decision about something: what about, when, and how it went. `blocked_by` holds (model, dataset) of withdrawn consent,
    `models` the versions that would be used."""

    seq: int
    time: int
    kind: str
    subject: str
    allow: bool
    evaluated: tuple[str, ...]
    complete: bool
    blocked_by: tuple[tuple[str, str], ...] = ()
    models: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Mark:
    """One event that a query counts."""

    seq: int
    time: int
    actor: str
    subject: str
    action: str = ""


@dataclass
class Withdrawal:
    """A dataset whose consent was withdrawn, and what came of it. `until_seq`: where consent was given again."""

    dataset: str
    seq: int
    time: int
    until_seq: int | None = None
    denied: list[Use] = field(default_factory=list)
    allowed: list[Use] = field(default_factory=list)
    models: set[str] = field(default_factory=set)
    standing: list[tuple[str, int]] = field(default_factory=list)
    """Workloads that were admitted with one of the models and not deleted since: subject and seq of the admission."""


@dataclass
class Observed:
    """What the log says about one tenant (or all) in one window; withdrawals count from before it too."""

    since: int | None
    until: int
    records: int = 0
    uses: list[Use] = field(default_factory=list)
    marks: dict[str, list[Mark]] = field(default_factory=dict)
    withdrawals: list[Withdrawal] = field(default_factory=list)
    intents: dict[str, int] = field(default_factory=dict)
    policy_revisions: Counter[str] = field(default_factory=Counter)
    controls: Counter[str] = field(default_factory=Counter)
    oldest: Mark | None = None
    wrong_clock: list[int] = field(default_factory=list)
    _latest: int = 0
    _after: list[Use] = field(default_factory=list)
    _admitted: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict)

    def inside(self, time: int) -> bool:
        return (self.since is None or time >= self.since) and time < self.until

    def of(self, *kinds: str) -> list[Mark]:
        """The events of these kinds in the window, in the order of the log."""
        return sorted((mark for kind in kinds for mark in self.marks.get(kind, [])), key=lambda mark: mark.seq)

    def decided(self, *kinds: str) -> list[Use]:
        return [use for use in self.uses if use.kind in kinds]


def observe(records: Iterable[Mapping[str, Any]], *, since: int | None, until: int) -> Observed:
    """`records` are all of the tenant's, from the first of the log on, in its order."""
    seen = Observed(since, until)
    for record in records:
        _one(seen, record)
    _judge_withdrawals(seen)
    return seen


def _one(seen: Observed, record: Mapping[str, Any]) -> None:
    seq, time, kind = record["seq"], record["time"], record["kind"]
    mark = Mark(seq, time, record["actor"], record["subject"], str(record.get("details", {}).get("action", "")))
    seen.oldest = seen.oldest or mark
    if kind == "consent":
        _consent(seen, record)
    use = None if record["decision"] is None else _use(record)
    if kind == "admission" and use is not None and use.allow and time < seen.until:
        _admission(seen, record)
    if use is not None and seen.withdrawals:
        seen._after.append(use)
    if not seen.inside(time):
        return
    seen.records += 1
    if seen._latest > time + 300:
        seen.wrong_clock.append(seq)
    seen._latest = max(seen._latest, time)
    seen.marks.setdefault(kind, []).append(mark)
    seen.controls.update(record["controls"])
    if kind == "inference.outcome":
        seen.intents.pop(str(record.get("details", {}).get("decision_id")), None)
    if use is not None:
        seen.uses.append(use)
        decision = record["decision"]
        if decision.get("policy_revision"):
            seen.policy_revisions[decision["policy_revision"]] += 1
        if kind == "inference.intent" and use.allow:
            seen.intents[str(decision.get("decision_id"))] = seq


def _use(record: Mapping[str, Any]) -> Use:
    decision = record["decision"]
    blocked = tuple(
        (_plain(args["model"]), _plain(args["dataset"]))
        for args in (violation.get("args", {}) for violation in decision.get("violations", []))
        if args.get("reason") == "consent_withdrawn" and "dataset" in args and "model" in args
    )
    named = all(
        (record["actor"], record["subject"], record["time"], decision.get("decision_id"), decision.get("policy_revision"))
    )
    return Use(
        record["seq"],
        record["time"],
        record["kind"],
        record["subject"],
        decision.get("allow") is True,
        tuple(decision.get("evaluated", [])),
        named and "@" in record["subject"],
        blocked,
        _models_of(record),
    )


def _models_of(record: Mapping[str, Any]) -> frozenset[str]:
    """An admission's record lists the versions; what takes an object away uses none. Any other decision is about its subject."""
    if record["kind"] != "admission":
        return frozenset((_plain(record["subject"]),))
    details = record.get("details", {})
    models = details.get("models")
    uses = isinstance(models, list) and details.get("gone") is not True and details.get("operation") in ("CREATE", "UPDATE")
    return frozenset(map(str, models)) if uses else frozenset()


def _admission(seen: Observed, record: Mapping[str, Any]) -> None:
    """What stands after an admission: the models that its record names, or nothing once the object is gone.

    An object that its owner stands for (`covered`) is not counted beside it. A CREATE adds to what stands under its name: it says
    nothing about an object that is there already, for the API server refuses it then.
    """
    details, subject = record.get("details", {}), record["subject"]
    models = details.get("models")
    if details.get("gone") is True:
        seen._admitted.pop(subject, None)
    elif isinstance(models, list) and details.get("operation") in ("CREATE", "UPDATE") and details.get("covered") is not True:
        named = frozenset(map(str, models))
        if details["operation"] == "CREATE" and subject in seen._admitted:
            named |= seen._admitted[subject][1]
        seen._admitted[subject] = (record["seq"], named)


def _plain(subject: Any) -> str:
    """`name@version`, whatever stands before it."""
    return str(subject).rsplit("/", 1)[-1]


def _consent(seen: Observed, record: Mapping[str, Any]) -> None:
    """A consent record says `action: withdraw` with the models trained on the dataset; any other action ends a withdrawal."""
    dataset, details = _plain(record["subject"]), record.get("details", {})
    withdrawn = details.get("action") == "withdraw"
    for withdrawal in seen.withdrawals:
        if withdrawal.dataset == dataset and withdrawal.until_seq is None:
            if withdrawn:
                return
            withdrawal.until_seq = record["seq"]
    if withdrawn:
        models = details.get("models")
        known = {_plain(model) for model in models} if isinstance(models, list) else set()
        seen.withdrawals.append(Withdrawal(dataset, record["seq"], record["time"], models=known))


def _judge_withdrawals(seen: Observed) -> None:
    """Which models each withdrawal hit (its record and the denials name them), and which calls of them were let through after it."""
    for withdrawal in seen.withdrawals:
        after = [
            use
            for use in seen._after
            if use.seq > withdrawal.seq
            and (withdrawal.until_seq is None or use.seq < withdrawal.until_seq)
            and use.time < seen.until
        ]
        for use in after:
            hit = {model for model, dataset in use.blocked_by if dataset == withdrawal.dataset}
            withdrawal.models |= hit
            if hit and not use.allow:
                withdrawal.denied.append(use)
        withdrawal.standing = sorted(
            (subject, seq) for subject, (seq, models) in seen._admitted.items() if models & withdrawal.models
        )
        withdrawal.allowed = [
            use for use in after if use.allow and use.models & withdrawal.models and use.time > withdrawal.time + SETTLE_SECONDS
        ]
