"""Server-sent events as an upstream may write them, and a stream's deltas put together, so that what was cut is judged whole. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_DEPTH = 64
_LINE = re.compile(rb"\r\n|\n|\r")
_SAID_ONCE = frozenset({"role", "id", "type", "index", "finish_reason"})
"""Of a delta: what names it. A later one stands in for an earlier one; any other text goes on where the last delta ended."""


def messages(events: bytes) -> Iterator[Any]:
    """The JSON value of each event (WHATWG HTML, 9.2.6: lines end in LF, CR or both, one blank after the colon is optional, several
    data lines are one text). What is no JSON is passed over; the last event may lack its blank line, and the first its beginning."""
    data: list[bytes] = []
    for line in [*_LINE.split(events.removeprefix(b"\xef\xbb\xbf")), b""]:
        if line:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
        elif data:
            # Where the joined text is no JSON, a reader that takes each line by itself may still have been told something.
            yield from _read(b"\n".join(data)) or [found for text in data for found in _read(text)]
            data = []


def _read(text: bytes) -> list[Any]:
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        return []


class _Text:
    """A text in pieces, so that putting many together stays linear."""

    def __init__(self, first: str) -> None:
        self.pieces = [first]


def streamed(events: bytes) -> dict[str, Any]:
    """The answer that a stream's deltas make, in the shape of one that came whole: content, refusal, reasoning, tool calls."""
    choices: dict[Any, Any] = {}
    for message in messages(events):
        found = message.get("choices") if isinstance(message, Mapping) else None
        for choice in found if isinstance(found, list) else ():
            if isinstance(choice, Mapping):
                said = {
                    name: choice[name] for name in ("delta", "message", "text", "finish_reason") if choice.get(name) is not None
                }
                _merge_items(choices, [{**said, "index": choice.get("index", 0)}], 0)
    return {"choices": [_finished(choice) for choice in choices.values()]}


def _merge(old: Any, new: Any, key: str, depth: int) -> Any:
    """`old` gone on with `new`; `old` is what an earlier call returned, or None."""
    if depth > MAX_DEPTH or new is None:
        return old
    if isinstance(new, str) and key not in _SAID_ONCE:
        if not isinstance(old, _Text):
            return _Text(new)
        old.pieces.append(new)
        return old
    if isinstance(new, Mapping):
        merged = old if isinstance(old, dict) else {}
        for name, item in new.items():
            merged[name] = _merge(merged.get(name), item, name, depth + 1)
        return merged
    if isinstance(new, list):
        items = old if isinstance(old, _Items) else _Items()
        _merge_items(items, new, depth + 1)
        return items
    return new


class _Items(dict[Any, Any]):
    """A list's items by their `index`, in the order in which they were first seen."""


def _merge_items(items: dict[Any, Any], new: list[Any], depth: int) -> None:
    for item in new:
        index = item.get("index") if isinstance(item, Mapping) else None
        place = index if isinstance(index, int) else ("unnumbered", len(items))
        items[place] = _merge(items.get(place), item, "", depth)


def _finished(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value.pieces)
    if isinstance(value, _Items):
        return [_finished(item) for item in value.values()]
    if isinstance(value, dict):
        return {name: _finished(item) for name, item in value.items()}
    return value
