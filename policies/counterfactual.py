"""What single change of one fact would end a denial: found by trying, and said only where deciding again has proved it.

For each fact that the denying rule reads a few values are tried: a truth turned round, the boundary of a number found by halving, a
text replaced by what it is compared with, a field that is absent given, an element added to a list, and, where nothing else was
found, an element taken out. The number of decisions is bounded (`MAX_TRIES`), so a long input costs no more than a short one.

Never tried: who asks, for which model, in which namespace, by which operation, and when. "Be somebody else" is no advice, and the
facts of an input belong to what it asks about: with another model's name they would prove nothing.
"""

from __future__ import annotations

import copy
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from core.decision import Decision, Domain, Violation
from core.inputs import INPUTS, MAX_INTEGER
from core.ports import Engine
from policies.facts import Fact, Path, fact, facts, get, kind_of, show_value
from policies.reads import Pattern, Reads

MAX_TRIES = 400
MAX_VALUES = 8
"""Of the values that a text is compared with, and of the ways to make an element."""
FIXED: tuple[Pattern, ...] = (
    ("now_unix",), ("mandatory",), ("request", "operation"), ("request", "principal"), ("request", "namespace"),
    ("request", "model"), ("request", "version"), ("request", "models", None, "name"), ("request", "models", None, "version"),
)  # fmt: skip

Key = tuple[str, str, str]
Way = Literal["set", "at most", "at least", "given", "added", "removed"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was tried and ends the reason. `ends`: the rule then has nothing against it any more; `allows`: all is allowed."""

    path: str
    way: Way
    found: str
    to: Any
    text: str
    ends: bool
    allows: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "change": self.way,
            "found": self.found,
            "to": self.to,
            "text": self.text,
            "ends_the_rule_s_denial": self.ends,
            "allows": self.allows,
        }


class Search:
    """Tries changes of one input. One budget for everything that is asked of it."""

    def __init__(self, engine: Engine, domain: Domain, input: Mapping[str, Any], decision: Decision) -> None:
        """`engine` must remember nothing (`Engine.apart`); `decision` is the one over `input`."""
        self._engine = engine
        self._domain = domain
        self._input = input
        self._before = _keys(decision)
        self._left = MAX_TRIES

    @property
    def exhausted(self) -> bool:
        return self._left <= 0

    def changes(self, violation: Violation, reads: Reads) -> tuple[Change, ...]:
        """Every single change found that ends this violation, what is enough by itself first."""
        goal = _Goal(self, violation)
        places = [one for one in facts(self._input, reads.paths) if not any(_fits(no, one.at[: len(no)]) for no in FIXED)]
        found = [change for place in places if (change := self._change(goal, place, reads)) is not None]
        found = found or [change for at in _elements(places) if (change := goal.removed(at)) is not None]
        return tuple(sorted(found, key=lambda change: (not change.allows, not change.ends)))

    def _change(self, goal: _Goal, place: Fact, reads: Reads) -> Change | None:
        kind = place.kind if place.present else _kind(_type_at(self._domain, place.at))
        if kind == "a number":
            return goal.number(place)
        if kind == "true or false":
            return goal.first(place, "set", [not place.value] if place.present else [True, False])
        if kind == "text":
            given = goal.first(place, "set", self._compared(place.at, reads))
            return given if given is not None or place.present else goal.first(place, "given", [_placeholder(place.at)])
        if kind == "a list":
            return goal.first(place, "added", self._elements(place.at, reads))
        if kind == "an object" and not place.present:
            return goal.first(place, "given", self._made(place.at, _type_at(self._domain, place.at), reads))
        return None

    def _compared(self, at: Path, reads: Reads) -> list[Any]:
        """What the text at `at` is compared with, and the other values that its type has."""
        annotation = _type_at(self._domain, at)
        values: list[Any] = list(get_args(annotation)) if get_origin(annotation) is Literal else []
        for one, other in sorted(reads.pairs, key=str):
            if _fits(one, at):
                values += self._values(other)
        values += [text for one, texts in reads.constants.items() if _fits(one, at) for text in sorted(map(str, texts)) if text]
        now = get(self._input, at)[0]
        return [value for value in dict.fromkeys(values) if isinstance(value, str) and value != now][:MAX_VALUES]

    def _values(self, pattern: Pattern) -> list[Any]:
        return [one.value for one in facts(self._input, [pattern]) if isinstance(one.value, (str, int))]

    def _elements(self, at: Path, reads: Reads) -> list[Any]:
        """What could stand in the list at `at` besides what does."""
        (item, *_) = (*get_args(_type_at(self._domain, at)), None)
        there = get(self._input, at)[0] or []
        if _kind(_bare(item)) == "an object":
            return self._made(at, _bare(item), reads)
        return [value for value in self._compared((*at, len(there)), reads) if value not in there]

    def _made(self, at: Path, annotation: Any, reads: Reads) -> list[Any]:
        """Objects of this type, filled with what stands under the same names elsewhere in what the rule reads."""
        elsewhere = [one for one in facts(self._input, reads.paths) if one.at[: len(at)] != at and one.present]
        hints: dict[str, Any] = {str(one.at[-1]): one.value for one in reversed(elsewhere) if isinstance(one.value, (str, int))}
        hints["now_unix"] = self._input.get("now_unix")
        return [_make(annotation, str(at[-1]), hints, truth) for truth in (True, False)]

    def decide(self, input: Mapping[str, Any]) -> Decision | None:
        """The decision over a changed input; None when the budget is spent."""
        if self.exhausted:
            return None
        self._left -= 1
        return self._engine.decide(self._domain, input)

    def proved(self, decision: Decision | None, goal: Key) -> bool:
        """The reason is gone, and no other one came instead."""
        if decision is None or goal[0] not in (*decision.evaluated, "policy/grant"):
            return False
        after = _keys(decision)
        return after[goal] < self._before[goal] and not after - self._before

    @property
    def input(self) -> Mapping[str, Any]:
        return self._input


class _Goal:
    """One violation to be rid of."""

    def __init__(self, search: Search, violation: Violation) -> None:
        self._search = search
        self._key = _key(violation)

    def first(self, place: Fact, way: Way, values: Sequence[Any]) -> Change | None:
        for value in values:
            decision = self._put(place, [*(get(self._search.input, place.at)[0] or []), value] if way == "added" else value)
            if decision is not None:
                return self._told(place, way, value, decision)
        return None

    def number(self, place: Fact) -> Change | None:
        """The boundary at which the number stops being the reason, below it or above it."""
        now = place.value if isinstance(place.value, int) else -1
        if now > 0 and self._put(place, 0) is not None:
            return self._boundary(place, good=0, bad=now)
        step = 1
        while now + step <= MAX_INTEGER and not self._search.exhausted:
            if self._put(place, now + step) is not None:
                return self._boundary(place, good=now + step, bad=now + step // 2)
            step *= 2
        return None

    def _boundary(self, place: Fact, *, good: int, bad: int) -> Change | None:
        while abs(good - bad) > 1 and not self._search.exhausted:
            middle = (good + bad) // 2
            if self._put(place, middle) is None:
                bad = middle
            else:
                good = middle
        decision = self._put(place, good)
        return None if decision is None else self._told(place, "at most" if good < bad else "at least", good, decision)

    def _put(self, place: Fact, value: Any) -> Decision | None:
        return self._try(lambda target, name: target.__setitem__(name, value), place.at)

    def removed(self, at: Path) -> Change | None:
        decision = self._try(lambda target, name: target.__delitem__(name), at)
        return None if decision is None else self._told(fact(self._search.input, at), "removed", None, decision)

    def _try(self, edit: Callable[[Any, Any], None], at: Path) -> Decision | None:
        """The decision after the edit, when it proves that the reason is gone."""
        changed = copy.deepcopy(dict(self._search.input))
        target, present = get(changed, at[:-1])
        if not present or not isinstance(target, (dict, list)):
            return None
        edit(target, at[-1])
        decision = self._search.decide(changed)
        return decision if self._search.proved(decision, self._key) else None

    def _told(self, place: Fact, way: Way, to: Any, decision: Decision) -> Change:
        ends = self._key[0] not in {violation.rule for violation in decision.violations}
        return Change(place.path, way, place.shown, to, _text(place, way, to), ends, decision.allow)


def _key(violation: Violation) -> Key:
    """What makes a reason the same one after a change: its numbers may differ then."""
    return violation.rule, violation.path, str(violation.args.get("reason", ""))


def _keys(decision: Decision) -> Counter[Key]:
    return Counter(_key(violation) for violation in decision.violations)


def _text(place: Fact, way: Way, to: Any) -> str:
    now = f"it is {place.shown}" if place.present else "it is absent"
    if way in {"at most", "at least"}:
        return f"{place.path} were {way} {show_value(place.at, to)} ({now})"
    if way == "added":
        return f"{place.path} had one more entry: {_entry(place.at, to)}"
    if way == "removed":
        return f"{place.path} were not there"
    if way == "given":
        return f"{place.path} were given" + (f" ({_entry(place.at, to)})" if isinstance(to, Mapping) else "")
    return f"{place.path} were {show_value(place.at, to)} ({now})"


def _entry(at: Path, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_entry((*at, name), part)}" for name, part in value.items() if part != [])
    return ", ".join(show_value(at, part) for part in value) if isinstance(value, list) else show_value(at, value)


def _elements(places: Sequence[Fact]) -> Iterator[Path]:
    """The innermost list elements that the facts stand in."""
    found: dict[Path, None] = {}
    for place in places:
        indices = [i for i, part in enumerate(place.at) if isinstance(part, int)]
        if indices:
            found[place.at[: indices[-1] + 1]] = None
    yield from found


def _fits(pattern: Pattern, at: Path) -> bool:
    return len(pattern) == len(at) and all(part is None or part == here for part, here in zip(pattern, at, strict=True))


# --- the domain's types ------------------------------------------------------------------------------------------------


def _bare(annotation: Any) -> Any:
    """The type without `Annotated` and `| None`."""
    if get_origin(annotation) in {Union, types.UnionType}:
        (annotation, *_) = [part for part in get_args(annotation) if part is not type(None)]
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    return annotation


def _type_at(domain: Domain, at: Path) -> Any:
    """The type of what stands at `at`; None where the domain's type has no such place."""
    here: Any = INPUTS[domain]
    for part in at:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = None if field is None else _bare(field.annotation)
        elif get_origin(here) in {list, dict}:
            here = _bare(get_args(here)[-1])
        else:
            return None
    return here


def _kind(annotation: Any) -> str:
    """As `facts.kind_of`, of a type."""
    origin = get_origin(annotation)
    if annotation is str or origin is Literal:
        return "text"
    if origin is list:
        return "a list"
    if annotation in {bool, int}:
        return kind_of(annotation())
    return "an object" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else "absent"


def _placeholder(at: Path) -> str:
    name = next((part for part in reversed(at) if isinstance(part, str)), "value")
    return f"another-{name}"


def _make(annotation: Any, name: str, hints: Mapping[str, Any], truth: bool) -> Any:
    """A value of this type: what is required, and what `hints` knows by name."""
    kind = _kind(annotation)
    if kind == "an object":
        fields = {key: (field.is_required(), _bare(field.annotation)) for key, field in annotation.model_fields.items()}
        return {
            key: _make(kept, key, hints, truth)
            for key, (required, kept) in fields.items()
            if required or key in hints or _kind(kept) in {"true or false", "a list"}
        }
    if kind == "true or false":
        return truth
    if kind == "a list":
        known = hints.get(name.removesuffix("s"))
        return [known] if isinstance(known, str) and get_args(annotation)[:1] != (int,) else []
    if kind == "a number":
        known = hints.get("now_unix" if name.endswith("_unix") else name)
        return known if isinstance(known, int) else 0
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    return hints[name] if isinstance(hints.get(name), str) else f"another-{name}"
