"""What would have been decided: recorded decisions beside what another bundle makes of the same inputs.

The baseline is what was recorded, or a second bundle over the same inputs. Each distinct input is opened and decided once, in the
order of the log, a few at a time; what stays in memory is one short entry per distinct input and the counts.

A decision is compared only where a policy made it on both sides. One without an input, one whose input or record cannot be opened, one
that a failing engine or the schema made, and one whose input was recorded for other mandatory rules, counts as `cannot`, never as
equal. Where the new bundle's own engine fails, that is a denial, as it would be at a door, and counts as a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from core.decision import Domain
from core.errors import BadInput, Broken, NotFound
from policies.recompute import Job, Judged, Outcome, rule_of

Kind = Literal["newly_denied", "newly_allowed", "other_reasons", "other_obligations"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""`other_reasons`: as allowed or denied as before, with other violations, warnings or grants."""

Cannot = Literal["no_input", "decision_lost", "input_lost", "other_input", "engine_failed", "unreadable", "schema", "mandatory"]
CANNOT: Mapping[Cannot, str] = {
    "no_input": "no engine was asked: there is no input",
    "decision_lost": "the decision was kept beside the log and cannot be opened: erased, or changed on disk",
    "input_lost": "the input cannot be opened: never kept, erased, or changed on disk",
    "other_input": "the input kept is not the one that the decision names",
    "engine_failed": "an engine failed, so no policy made the decision to compare with",
    "unreadable": "this version has no such domain, or cannot read the input",
    "schema": "the input does not fit the domain's schema, so no rule judges it: then, or under this version",
    "mandatory": "the input was recorded by a version that asked for other mandatory rules",
}
EXAMPLES = 5
BATCH_INPUTS = 256
BATCH_BYTES = 8 * 1024 * 1024
BATCH_DECISIONS = 4_096


@dataclass(frozen=True, slots=True)
class Recorded:
    """One decision as it is on record; `cannot` when the record itself says that there is nothing to compare."""

    decision_id: str
    tenant: str
    domain: Domain
    """Another text only where the record is of a domain that this version does not have (`cannot`)."""
    time: int
    input_digest: str
    outcome: Outcome | None
    cannot: Cannot | None = None


class Inputs(Protocol):
    """Where recorded inputs are opened. NotFound or Broken for one that cannot be had any more."""

    def payload(self, tenant: str, digest: str) -> bytes: ...


class Decide(Protocol):
    """`policies.recompute.Recompute`: starts on inputs, and gives what they came to when asked."""

    def submit(self, jobs: Sequence[Job]) -> Callable[[], list[Judged]]: ...


@dataclass(frozen=True, slots=True)
class Change:
    """One decision that would come out otherwise. `rules`: those whose violations, warnings or grants come or go."""

    recorded: Recorded
    kind: Kind
    rules: tuple[str, ...]
    team: str
    models: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "decision_id": self.recorded.decision_id,
            "time": self.recorded.time,
            "tenant": self.recorded.tenant,
            "domain": self.recorded.domain,
            "change": self.kind,
            "rules": list(self.rules),
            "team": self.team,
            "models": list(self.models),
            "input_digest": self.recorded.input_digest,
        }


@dataclass(slots=True)
class Tally:
    """Decisions and distinct inputs of one kind, with the ids of a few of different inputs."""

    decisions: int = 0
    inputs: set[str] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)

    def add(self, recorded: Recorded) -> None:
        self.decisions += 1
        seen = recorded.input_digest in self.inputs
        if recorded.input_digest:
            self.inputs.add(recorded.input_digest)
        if not seen and len(self.examples) < EXAMPLES:
            self.examples.append(recorded.decision_id)

    def as_json(self) -> dict[str, Any]:
        return {"decisions": self.decisions, "inputs": len(self.inputs), "examples": list(self.examples)}


Groups = dict[tuple[str, Kind], Tally]


@dataclass
class Report:
    """The counts. Every decision is in exactly one of `unchanged`, `kinds` and `cannot`; in `by_*` it stands under each of its names."""

    decisions: int = 0
    inputs: int = 0
    unchanged: int = 0
    kinds: dict[Kind, Tally] = field(default_factory=lambda: {kind: Tally() for kind in KINDS})
    cannot: dict[Cannot, Tally] = field(default_factory=dict)
    by_rule: Groups = field(default_factory=dict)
    by_team: Groups = field(default_factory=dict)
    by_model: Groups = field(default_factory=dict)

    @property
    def changed(self) -> int:
        return sum(tally.decisions for tally in self.kinds.values())

    @property
    def compared(self) -> int:
        return self.unchanged + self.changed

    @property
    def same(self) -> bool:
        """Something was compared, and nothing would change."""
        return self.compared > 0 and self.changed == 0

    def count(self, change: Change) -> None:
        self.kinds[change.kind].add(change.recorded)
        for groups, names in (
            (self.by_rule, change.rules),
            (self.by_team, (change.team,)),
            (self.by_model, change.models or ("",)),
        ):
            for name in names:
                groups.setdefault((name, change.kind), Tally()).add(change.recorded)

    def count_cannot(self, recorded: Recorded, why: Cannot) -> None:
        self.cannot.setdefault(why, Tally()).add(recorded)

    def as_json(self) -> dict[str, Any]:
        return {
            "decisions": self.decisions,
            "inputs": self.inputs,
            "compared": self.compared,
            "unchanged": self.unchanged,
            "changed": self.changed,
            "changes": {kind: tally.as_json() for kind, tally in self.kinds.items()},
            "by_rule": _rows("rule", self.by_rule),
            "by_team": _rows("team", self.by_team),
            "by_model": _rows("model", self.by_model),
            "cannot": [
                {"code": code, "reason": CANNOT[code], **tally.as_json()} for code, tally in sorted(self.cannot.items())
            ],
        }


def ordered(groups: Groups) -> list[tuple[str, Kind, Tally]]:
    """The largest first, then by name and kind."""
    rows = [(name, kind, tally) for (name, kind), tally in groups.items()]
    return sorted(rows, key=lambda row: (-row[2].decisions, row[0], row[1]))


def _rows(column: str, groups: Groups) -> list[dict[str, Any]]:
    return [{column: name or None, "change": kind, **tally.as_json()} for name, kind, tally in ordered(groups)]


def difference(before: Outcome, after: Outcome) -> tuple[Kind, tuple[str, ...]] | None:
    """How one outcome differs from another, and through which rules; None when it does not."""
    if before == after:
        return None
    rules = {rule_of(entry) for entry in {*before.violations} ^ {*after.violations}}
    rules |= {rule_of(entry) for entry in {*before.warnings} ^ {*after.warnings}}
    rules |= {grant.partition(":")[0] for grant in {*before.grants} ^ {*after.grants}}
    kind: Kind = "other_reasons" if rules else "other_obligations"
    if before.allow != after.allow:
        kind = "newly_allowed" if after.allow else "newly_denied"
    return kind, tuple(sorted(rules))


def compare(
    recorded: Iterable[Recorded],
    inputs: Inputs,
    decide: Decide,
    *,
    between: bool = False,
    each: Callable[[Change], None] | None = None,
) -> Report:
    """The report over `recorded`, read once. `between`: `decide` gives two outcomes, and the second is held against the first;
    otherwise its one against what was recorded. `each` is told of every change as it is found."""
    return _Comparison(inputs, decide, between=between, each=each).run(recorded)


@dataclass(slots=True)
class _Batch:
    """Decisions in their order, and the inputs among them that were not seen before, opened."""

    decisions: list[tuple[Recorded, _Key | None]] = field(default_factory=list)
    keys: list[_Key] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    size: int = 0

    @property
    def full(self) -> bool:
        return len(self.jobs) >= BATCH_INPUTS or self.size >= BATCH_BYTES or len(self.decisions) >= BATCH_DECISIONS


_Key = tuple[str, Domain, str]
_Found = Judged | None


class _Comparison:
    def __init__(self, inputs: Inputs, decide: Decide, *, between: bool, each: Callable[[Change], None] | None) -> None:
        self.inputs, self.decide, self.between, self.each = inputs, decide, between, each
        self.report = Report()
        self.known: dict[_Key, _Found] = {}
        """Each distinct input: what it came to; None while that is being decided, and when the input is lost."""
        self.shared: dict[Judged, Judged] = {}
        """Many inputs come to the same: each such value is kept once."""

    def run(self, recorded: Iterable[Recorded]) -> Report:
        running: tuple[_Batch, Callable[[], list[Judged]]] | None = None
        for batch in self._batches(recorded):
            # While one batch is decided, the next one is read.
            if running is not None:
                self._settle(*running)
            running = batch, self.decide.submit(batch.jobs)
        if running is not None:
            self._settle(*running)
        self.report.inputs = len({digest for _, _, digest in self.known})
        return self.report

    def _batches(self, recorded: Iterable[Recorded]) -> Iterator[_Batch]:
        batch = _Batch()
        for decision in recorded:
            self.report.decisions += 1
            key = None if decision.cannot else self._take(decision, batch)
            batch.decisions.append((decision, key))
            if batch.full:
                yield batch
                batch = _Batch()
        if batch.decisions:
            yield batch

    def _take(self, decision: Recorded, batch: _Batch) -> _Key:
        """The key of the decision's input, which is opened when it is a new one."""
        key = decision.tenant, decision.domain, decision.input_digest
        if key not in self.known:
            self.known[key] = None
            try:
                data = self.inputs.payload(decision.tenant, decision.input_digest)
            except (NotFound, Broken, BadInput):
                return key
            batch.keys.append(key)
            batch.jobs.append((decision.domain, data))
            batch.size += len(data)
        return key

    def _settle(self, batch: _Batch, answers: Callable[[], list[Judged]]) -> None:
        for key, judged in zip(batch.keys, answers(), strict=True):
            self.known[key] = self.shared.setdefault(judged, judged)
        for decision, asked in batch.decisions:
            why = self._judge(decision, None if asked is None else self.known[asked])
            if why is not None:
                self.report.count_cannot(decision, why)

    def _judge(self, decision: Recorded, found: _Found) -> Cannot | None:
        """Counts `decision` as unchanged or changed; or why it cannot be compared."""
        if decision.cannot is not None:
            return decision.cannot
        if not isinstance(found, Judged):
            return "input_lost"
        if found.unjudged:
            return found.unjudged
        before = found.outcomes[0] if self.between else decision.outcome
        if before is None or before.engine_failed:
            return "engine_failed"
        if before.denied_by == ("input/schema",):
            return "schema"
        differs = difference(before, found.outcomes[-1])
        if differs is None:
            self.report.unchanged += 1
            return None
        change = Change(decision, *differs, found.team, found.models)
        self.report.count(change)
        if self.each is not None:
            self.each(change)
        return None
