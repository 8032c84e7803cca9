"""Layers of configuration: reading them, laying one over the other, addressing a value, telling two apart.

Inside this module a document is held *keyed*: the lists whose items have an identity are maps from that identity to the
item, so that merging, addressing and comparing are the same walk over maps everywhere. `keyed` and `listed` convert.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from pydantic import ValidationError

from core.canonical import canonical, digest
from core.errors import BadInput, ConfigError, NotFound
from policies.config import MODE_SCOPES, Document, Path, freeze_key, mode_key, problems

IDENTITY: Mapping[str, tuple[str, ...]] = {
    "grants": ("id",),
    "exemptions": ("id",),
    "modes": ("rule", *MODE_SCOPES),
    "freezes": ("tenant", "target"),
    "obligations": ("tenant",),
}
"""Lists that merge item by item, and the fields that make an item the same one. Every other list is replaced whole."""

MAX_DEPTH = 32
_MODE_KEY = re.compile(r"(?P<rule>[^\[\]]+)(?:\[(?P<narrowed>[^\[\]]+)\])?\Z")
_PART = re.compile(r'"(?P<quoted>[^"]*)"|(?P<plain>(?:[^."\[\]]|\[[^\[\]]*\])+)')


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of configuration: its name for messages, and its keyed document."""

    name: str
    keyed: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs; an absent side is None and its flag says so."""

    path: str
    before: Any
    after: Any
    added: bool
    removed: bool


def plain(value: Any, *, where: str = "", depth: int = 0) -> Any:
    """`value` (as YAML gave it) in JSON's types: times become text, everything JSON cannot hold is BadInput with its place."""
    if depth > MAX_DEPTH:
        raise BadInput(f"nested deeper than {MAX_DEPTH} levels", where=where)
    if isinstance(value, datetime):
        return _time_text(value, where)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise BadInput(f"the key {str(key)[:40]} is not text; put it in quotes", where=where)
        return {key: plain(item, where=_below(where, key), depth=depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, where=_below(where, str(index)), depth=depth + 1) for index, item in enumerate(value)]
    if isinstance(value, float) and not value.is_integer():
        raise BadInput('write fractions in quotes: "0.5" or "3/7"', where=where)
    if value is None or isinstance(value, (str, bool, int, float)):
        canonical(value)
        return value
    kind = "a date without a time; write 2027-01-31T00:00:00Z" if isinstance(value, date) else f"of type {type(value).__name__}"
    raise BadInput(f"the value is {kind}", where=where)


def _time_text(value: datetime, where: str) -> str:
    if value.tzinfo is None:
        raise BadInput("a time needs its zone; write 2027-01-31T00:00:00Z", where=where)
    if value.microsecond:
        raise BadInput("times are whole seconds; write 2027-01-31T00:00:00Z", where=where)
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _below(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def keyed(document: Any, *, where: str = "") -> dict[str, Any]:
    """A plain document with its identity lists turned into maps. BadInput for an item without identity, or two with one."""
    if not isinstance(document, dict):
        raise BadInput(f"expected a mapping of sections, found {type(document).__name__}", where=where)
    return {
        section: keyed_section(section, value, where=where) if section in IDENTITY else copy.deepcopy(value)
        for section, value in document.items()
    }


def keyed_section(section: str, items: Any, *, where: str = "") -> dict[str, Any]:
    place = f"{where}: {section}" if where else section
    if not isinstance(items, list):
        raise BadInput(f"expected a list, found {type(items).__name__}", where=place)
    result: dict[str, Any] = {}
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise BadInput(f"expected a mapping, found {type(item).__name__}", where=f"{place}.{index}")
        key = item_key(section, item, where=f"{place}.{index}")
        if key in result:
            raise BadInput(f"{key} stands twice", where=place)
        result[key] = copy.deepcopy(item)
    return result


def item_key(section: str, item: Mapping[str, Any], *, where: str = "") -> str:
    """The identity of an item as it is written in paths. BadInput when a part that makes it is missing or not text."""
    fields = IDENTITY[section]
    values = [item.get(field) for field in fields]
    for field, value in zip(fields, values, strict=True):
        optional = section == "modes" and field != "rule"
        if not (isinstance(value, str) and value) and not (optional and value is None):
            raise BadInput(f"every item of {section} needs {field!r} as text", where=where)
    if section == "modes":
        return mode_key(item)
    return freeze_key(str(values[0]), str(values[1])) if section == "freezes" else str(values[0])


def identity(section: str, key: str) -> dict[str, Any]:
    """The fields behind an item's key: the inverse of `item_key`."""
    if section == "freezes":
        tenant, _, target = key.partition("/")
        return {"tenant": tenant, "target": target}
    if section != "modes":
        return {IDENTITY[section][0]: key}
    match = _MODE_KEY.match(key)
    found = {"rule": match["rule"]} if match else {}
    for part in (match["narrowed"] or "").split(",") if match else ():
        name, equals, value = part.partition("=")
        if equals and value:
            found[name] = value
    if not found or mode_key(found) != key:
        raise BadInput(f"{key[:120]!r} names no mode; write RULE or RULE[tenant=T,team=M,namespace=N,model=X] in this order")
    return found


def listed(keyed_document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as people and schemas see it. Items are sorted by identity, so that order cannot change a digest."""
    return {
        section: [copy.deepcopy(value[key]) for key in sorted(value)] if section in IDENTITY else copy.deepcopy(value)
        for section, value in keyed_document.items()
    }


def merge(lower: Any, upper: Any) -> Any:
    """`upper` laid over `lower`: maps (and identity lists) by key, anything else replaced. Neither side is changed."""
    if isinstance(lower, dict) and isinstance(upper, dict):
        return {**lower, **{key: merge(lower[key], value) if key in lower else value for key, value in upper.items()}}
    return upper


def overlay(layers: Iterable[Layer]) -> dict[str, Any]:
    """All layers, lowest first, as one keyed document."""
    result: dict[str, Any] = {}
    for layer in layers:
        result = merge(result, layer.keyed)
    return result


def section_digest(section: str, value: Any) -> str:
    return digest(_shown(section, value))


def revision(merged: Mapping[str, Any]) -> str:
    """The digest of a keyed document, over the digests of its sections: what did not change need not be digested again."""
    return digest({section: section_digest(section, value) for section, value in merged.items()})


def _shown(section: str, value: Any) -> Any:
    """A section as `listed` shows it, sharing its parts: for reading only."""
    return [value[key] for key in sorted(value)] if section in IDENTITY else value


def validate(
    merged: Mapping[str, Any],
    layers: Iterable[Layer],
    rules: Collection[str] | None = None,
    *,
    checked: Document | None = None,
    same: Collection[str] = (),
) -> Document:
    """The typed document behind a keyed one. ConfigError names the layer and the key of the first thing that is wrong.

    `rules` are the ids that modes and exemptions may name; None leaves that unchecked. The sections `same` are as in `checked` and
    are taken from it.
    """
    layers = list(layers)
    taken = {section: getattr(checked, section) for section in same}
    shown = {section: _shown(section, value) for section, value in merged.items() if section not in taken}
    try:
        document = Document.model_validate(shown).model_copy(update=taken)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        path = _path_of(first["loc"], shown)
        hint = " (unknown key)" if first["type"] == "extra_forbidden" else ""
        raise ConfigError(first["msg"].removeprefix("Value error, ") + hint, where=blame(path, layers)) from error
    for path, message in problems(document, rules):
        raise ConfigError(message, where=blame(path, layers))
    return document


def _path_of(location: tuple[int | str, ...], shown: Any) -> Path:
    """pydantic's location with list positions turned into the items' keys."""
    parts: list[str] = []
    here = shown
    for part in location:
        if part == "[key]":
            break
        if isinstance(part, int) and len(parts) == 1 and parts[0] in IDENTITY:
            parts.append(item_key(parts[0], here[part]))
        else:
            parts.append(str(part))
        inside = isinstance(here, list) and isinstance(part, int)
        here = here[part] if inside or (isinstance(here, dict) and part in here) else None
    return tuple(parts)


def blame(path: Path, layers: Iterable[Layer]) -> str:
    """`FILE: dotted.path`, the file being the uppermost layer that says something about the longest part of the path."""
    best, reach = "", -1
    for layer in layers:
        depth = _reach(layer.keyed, path)
        if depth >= reach and depth > 0:
            best, reach = layer.name, depth
    dotted = show_path(path)
    return f"{best}: {dotted}" if best else dotted


def _reach(value: Any, path: Path) -> int:
    depth = 0
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return depth
        value = value[part]
        depth += 1
    return depth


def parse_path(text: str) -> Path:
    """`tenants.acme.teams.vision.gpu_quota`, `exemptions.EX-1`, `modes.admission/gpu-quota[tenant=acme]`.

    A part that holds a dot stands in double quotes; after `accelerators.` the rest is one resource name. BadInput otherwise.
    """
    head, dot, rest = text.partition(".")
    if head == "accelerators" and dot and rest and '"' not in rest:
        return (head, rest)
    parts: list[str] = []
    position = 0
    while True:
        match = _PART.match(text, position)
        if match is None:
            break
        part = match["plain"] if match["quoted"] is None else match["quoted"]
        parts.append(part)
        position = match.end()
        if position == len(text) and part:
            return tuple(parts)
        if text[position : position + 1] != "." or not part:
            break
        position += 1
    raise BadInput(f"{text[:160]!r} is not a path; write names joined by dots, a name with a dot in double quotes")


def show_path(path: Path) -> str:
    """The inverse of `parse_path`."""
    if len(path) == 2 and path[0] == "accelerators":
        return ".".join(path)
    return ".".join(f'"{part}"' if "." in re.sub(r"\[[^\[\]]*\]", "", part) else part for part in path)


def get(document: Mapping[str, Any], path: Path) -> Any:
    """The value at `path` of a keyed document; NotFound when there is none."""
    here: Any = document
    for depth, part in enumerate(path):
        if not isinstance(here, dict) or part not in here:
            raise NotFound("nothing is configured there", where=show_path(path[: depth + 1]))
        here = here[part]
    return copy.deepcopy(here)


def put(document: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy of the keyed document with `value` (plain) at `path`; maps and items on the way are made."""
    result = copy.deepcopy(dict(document))
    section = path[0]
    if section in IDENTITY:
        value = _item_value(section, path, value)
    here = result
    for depth, part in enumerate(path[:-1]):
        fresh = identity(section, part) if depth == 1 and section in IDENTITY else {}
        here = here.setdefault(part, fresh)
        if not isinstance(here, dict):
            raise BadInput("holds a plain value; nothing can stand below it", where=show_path(path[: depth + 1]))
    here[path[-1]] = copy.deepcopy(value)
    return result


def _item_value(section: str, path: Path, value: Any) -> Any:
    """`value` as it is kept: a whole section keyed, an item with the identity that its path names."""
    if len(path) == 1:
        return keyed_section(section, value)
    names = identity(section, path[1])
    if len(path) == 2:
        if not isinstance(value, dict):
            raise BadInput(f"expected a mapping, found {type(value).__name__}", where=show_path(path))
        whole = {**names, **value}
        if item_key(section, whole, where=show_path(path)) != path[1]:
            raise BadInput(f"the value names another item than the path ({path[1]})", where=show_path(path))
        return whole
    if len(path) == 3 and path[2] in IDENTITY[section]:
        raise BadInput(f"{path[2]} is the identity of the item; add another item and unset this one", where=show_path(path))
    return value


def drop(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A copy of the keyed document without what stands at `path`; NotFound when nothing does.

    An item of which only its identity is left goes too: it would say nothing.
    """
    get(document, path)
    result = copy.deepcopy(dict(document))
    here = result
    for part in path[:-1]:
        here = here[part]
    if len(path) == 3 and path[0] in IDENTITY and path[2] in IDENTITY[path[0]]:
        raise BadInput(f"{path[2]} is the identity of the item; unset the item", where=show_path(path))
    del here[path[-1]]
    section = path[0]
    if section in IDENTITY and len(path) > 2 and set(result[section][path[1]]) <= set(IDENTITY[section]):
        del result[section][path[1]]
    return result


def differences(before: Any, after: Any, path: Path = ()) -> Iterator[Change]:
    """Every value that two keyed documents do not share, by path."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            here = (*path, key)
            if key in before and key in after:
                yield from differences(before[key], after[key], here)
            else:
                yield Change(show_path(here), before.get(key), after.get(key), key not in before, key not in after)
    elif before != after or type(before) is not type(after):
        yield Change(show_path(path), before, after, added=False, removed=False)
