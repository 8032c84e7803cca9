"""The facts at the paths that a rule reads: what stands there in one input, in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.names import show_gpus
from policies.messages import clean
from policies.reads import Pattern

Path = tuple[str | int, ...]
Kind = Literal["absent", "text", "a number", "true or false", "a list", "an object"]

SHOWN_ELEMENTS = 8
"""Of a longer list only the first ones are looked into."""
SHOWN_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Fact:
    """What stands at `path`. `value` is there for scalars and short lists of scalars; anything larger is only named."""

    path: str
    kind: Kind
    value: Any
    shown: str
    at: Path = ()

    @property
    def present(self) -> bool:
        return self.kind != "absent"

    def as_json(self) -> dict[str, Any]:
        return {"path": self.path, "present": self.present, "kind": self.kind, "value": self.value, "shown": self.shown}


def facts(input: Mapping[str, Any], patterns: Iterable[Pattern], *, values: bool = True) -> tuple[Fact, ...]:
    """What `input` holds at each place that the patterns name, by path. Without `values` only the kinds are told."""
    found: dict[Path, Fact] = {}
    for pattern in patterns:
        for at in _places(input, (), pattern):
            found[at] = fact(input, at, values=values)
    return tuple(sorted(found.values(), key=lambda one: _order(one.at)))


def _places(value: Any, at: Path, rest: Sequence[str | None]) -> Iterable[Path]:
    """The concrete paths of a pattern; where something on the way is absent, the path up to there."""
    if not rest:
        yield at
    elif isinstance(value, list) and rest[0] is None:
        for index, item in enumerate(value[:SHOWN_ELEMENTS]):
            yield from _places(item, (*at, index), rest[1:])
    elif isinstance(value, Mapping):
        for name in list(value)[:SHOWN_ELEMENTS] if rest[0] is None else [rest[0]]:
            if name in value:
                yield from _places(value[name], (*at, name), rest[1:])
            else:
                yield (*at, name)
    else:
        yield at


def fact(input: Mapping[str, Any], at: Path, *, values: bool = True) -> Fact:
    """What stands at one place."""
    value, present = get(input, at)
    kind = kind_of(value) if present else "absent"
    if not values:
        return Fact(show_path(at), kind, None, kind, at)
    return Fact(show_path(at), kind, _plain(value), _shown(at, value) if present else "absent", at)


def get(document: Any, at: Path) -> tuple[Any, bool]:
    """The value at `at`, and whether there is one."""
    here = document
    for part in at:
        found = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if not found and not (isinstance(here, Mapping) and part in here):
            return None, False
        here = here[part]
    return here, True


def kind_of(value: Any) -> Kind:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, Mapping) else "absent"


def show_path(at: Path) -> str:
    """`facts.models[0].revoked`"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{clean(part)[:SHOWN_CHARACTERS]}" for part in at)
    return text.removeprefix(".")


def show_value(at: Path, value: Any) -> str:
    """A value as people read it: shares as GPUs, seconds as a date. What a number means is said by its field's name (core.inputs)."""
    name = next((part for part in reversed(at) if isinstance(part, str)), "")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value >= 0 and name.endswith("_shares"):
        count = show_gpus(value)
        return f"{count} GPU" if count == "1" else f"{count} GPUs"
    if isinstance(value, int) and name.endswith("_unix"):
        return _date(value)
    if isinstance(value, str):
        text = clean(value)
        return f'"{text}"' if len(text) <= SHOWN_CHARACTERS else f'"{text[:SHOWN_CHARACTERS]}…"'
    return str(value)


def _date(seconds: int) -> str:
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # beyond the calendar
        return str(seconds)


def _shown(at: Path, value: Any) -> str:
    if isinstance(value, list):
        if not value:
            return "an empty list"
        if _scalars(value) and len(value) <= SHOWN_ELEMENTS:
            return ", ".join(show_value(at, item) for item in value)
        return f"a list of {len(value)}"
    return f"an object with {len(value)} fields" if isinstance(value, Mapping) else show_value(at, value)


def _plain(value: Any) -> Any:
    """The value itself where it is a scalar or a short list of them; texts without control characters and cut."""
    if isinstance(value, str):
        return clean(value)[:SHOWN_CHARACTERS]
    if isinstance(value, list):
        return [_plain(item) for item in value] if _scalars(value) and len(value) <= SHOWN_ELEMENTS else None
    return None if isinstance(value, Mapping) else value


def _scalars(value: list[Any]) -> bool:
    return not any(isinstance(item, (list, Mapping)) for item in value)


def _order(at: Path) -> tuple[tuple[bool, str, int], ...]:
    return tuple((isinstance(part, int), "", part) if isinstance(part, int) else (False, part, 0) for part in at)
