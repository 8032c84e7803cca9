"""What the input's schema says of a path: whether the field is always there, may be missing, or cannot exist.

The linter asks this before it calls a comparison dangerous. Where an unnamed domain is meant (a library that no rule calls), a
path counts as absent only when no domain has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any, Literal

from core.decision import Domain
from core.inputs import INPUTS


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a path that is no field name.

    `each`: the element an iteration stands at; `at`: a computed index; `index`: a number; `local`: a value with no path
    of its own (a parameter, what a call gave); `rule`: a rule's value.
    """

    kind: Literal["each", "at", "index", "local", "rule"]
    name: str


Part = str | Step
Place = tuple[Part, ...]
"""Where a value stands: ("input", "request", "containers", Step("each", "c"), "image")."""

INPUT: Place = ("input",)


class Presence(IntEnum):
    """How sure a path is, from best to worst. DEFAULTED: doors always write it, the schema lets it be left out."""

    REQUIRED = 0
    DEFAULTED = 1
    OPTIONAL = 2
    ABSENT = 3


@dataclass(frozen=True)
class Shapes:
    """The schemas of one domain, or of several for code that serves them all."""

    domains: tuple[Domain, ...]

    def presence(self, place: Place) -> Presence:
        """Of a place that begins with `input`."""
        found = [_presence(domain, place) for domain in self.domains]
        there = [one for one in found if one is not Presence.ABSENT]
        if not there:
            return Presence.ABSENT
        return max(there) if len(there) == len(found) else Presence.OPTIONAL

    def unsure_prefixes(self, place: Place, least: Presence) -> list[Place]:
        """Each beginning of `place` whose last step is at most as sure as `least` though all before it is there.

        What an iteration stands at is there, and so is all that leads to it.
        """
        standing = max((i for i, part in enumerate(place) if isinstance(part, Step) and part.kind == "each"), default=0)
        prefixes = [place[:length] for length in range(max(2, standing + 2), len(place) + 1)]
        return [prefix for prefix in prefixes if any(_last(domain, prefix) >= least for domain in self.domains)]


def show_place(place: Place) -> str:
    """As a person would write it."""
    first, *rest = place
    text = first.name.split("#")[0] if isinstance(first, Step) else first
    for part in rest:
        if isinstance(part, Step):
            text += "[_]" if part.kind == "each" else f"[{part.name.split('#')[0]}]"
        else:
            text += f".{part}" if part.isidentifier() else f'["{part}"]'
    return text


def _presence(domain: Domain, place: Place) -> Presence:
    worst = Presence.REQUIRED
    for length in range(2, len(place) + 1):
        worst = max(worst, _last(domain, place[:length]))
    return worst


def _last(domain: Domain, place: Place) -> Presence:
    return _walk(domain, place)[1]


@cache
def _schema(domain: Domain) -> Mapping[str, Any]:
    return INPUTS[domain].model_json_schema()


def _walk(domain: Domain, place: Place) -> tuple[Sequence[Mapping[str, Any]], Presence]:
    """The schemas at a place, and the presence of its last step."""
    nodes: Sequence[Mapping[str, Any]] = [_schema(domain)]
    presence = Presence.REQUIRED
    for part in place[1:]:
        nodes, presence = _step(domain, nodes, part)
        if not nodes:
            return nodes, Presence.ABSENT
    return nodes, presence


def _step(domain: Domain, nodes: Iterable[Mapping[str, Any]], part: Part) -> tuple[list[Mapping[str, Any]], Presence]:
    found: list[tuple[Mapping[str, Any], Presence]] = []
    missing = False
    for node in _alternatives(domain, nodes):
        below = list(_field(node, part) if isinstance(part, str) else _element(node, part))
        missing = missing or not below
        found += below
    presence = max((one for _, one in found), default=Presence.ABSENT)
    return [node for node, _ in found], max(presence, Presence.OPTIONAL) if found and missing else presence


def _field(node: Mapping[str, Any], name: str) -> Iterable[tuple[Mapping[str, Any], Presence]]:
    properties = node.get("properties", {})
    if name in properties:
        field = properties[name]
        if name in node.get("required", ()):
            yield field, Presence.REQUIRED
        else:
            yield field, Presence.OPTIONAL if field.get("default") is None else Presence.DEFAULTED
    elif isinstance(more := node.get("additionalProperties"), Mapping):
        yield more, Presence.OPTIONAL


def _element(node: Mapping[str, Any], step: Step) -> Iterable[tuple[Mapping[str, Any], Presence]]:
    if isinstance(items := node.get("items"), Mapping):
        yield items, {"each": Presence.REQUIRED, "at": Presence.DEFAULTED}.get(step.kind, Presence.OPTIONAL)
    if step.kind != "index":
        members = [*node.get("properties", {}).values()]
        if isinstance(more := node.get("additionalProperties"), Mapping):
            members.append(more)
        for member in members:
            yield member, Presence.REQUIRED if step.kind == "each" else Presence.OPTIONAL


def _alternatives(domain: Domain, nodes: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """The schemas without `$ref` and `anyOf`; null is left out, since absent fields are never written as null."""
    for node in nodes:
        if "$ref" in node:
            name = node["$ref"].rsplit("/", 1)[1]
            yield from _alternatives(domain, [_schema(domain)["$defs"][name]])
        elif "anyOf" in node:
            yield from _alternatives(domain, node["anyOf"])
        elif node.get("type") != "null":
            yield node
