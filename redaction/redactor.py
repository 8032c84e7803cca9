"""Replacing what was found: text, and JSON with its keys, numbers and nested documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.errors import TooLarge

MAX_JSON_DEPTH = 64
WINDOW = 20_000
OVERLAP = 2_000
"""Long text is analysed in overlapping windows, so that the work grows with the length and memory does not. A match up to
OVERLAP characters long is found whole wherever it stands."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where something was found in the original text: kind, half-open range, confidence. Never the value."""

    kind: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Redacted:
    text: str
    spans: tuple[Span, ...]

    @property
    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(span.kind for span in self.spans).items()))


class Finder(Protocol):
    def find(self, text: str) -> Sequence[Span]: ...


class Redactor:
    """`redact` for text, `redact_json` for parsed JSON. A tag such as `<EMAIL_ADDRESS>` stands where a value was."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def redact(self, text: str) -> Redacted:
        """`text` with every finding replaced by its tag; redacting the result again changes nothing."""
        spans = merge(self._find(text))
        parts, at = [], 0
        for span in spans:
            parts += [text[at : span.start], f"<{span.kind}>"]
            at = span.end
        return Redacted("".join([*parts, text[at:]]), tuple(spans))

    def redact_json(self, value: Any) -> tuple[Any, dict[str, int]]:
        """`value` with its strings, keys and telling numbers redacted, and the counts by kind. TooLarge beyond 64 levels."""
        counts: Counter[str] = Counter()

        def text(found: str) -> str:
            result = self.redact(found)
            counts.update(result.counts)
            return result.text

        return _walk(value, text, 0), dict(sorted(counts.items()))

    def _find(self, text: str) -> list[Span]:
        if len(text) <= WINDOW:
            return list(self._finder.find(text))
        found: set[Span] = set()
        for start in range(0, len(text), WINDOW - OVERLAP):
            window = text[start : start + WINDOW]
            for span in self._finder.find(window):
                # What touches an inner edge may be cut; the neighbouring window has it whole.
                cut = (span.start == 0 and start > 0) or (span.end == len(window) and start + WINDOW < len(text))
                if not cut or span.end - span.start >= OVERLAP:
                    found.add(Span(span.kind, start + span.start, start + span.end, span.score))
            if start + WINDOW >= len(text):
                break
        return list(found)


def merge(spans: Sequence[Span]) -> list[Span]:
    """Spans in order without overlap: where some overlap, their union under the kind of the longest one.

    Of two equally long ones a phone number gives way (its shape is the loosest), then the surer one wins.
    """
    merged: list[Span] = []
    best: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, -s.end, s.kind)):
        if merged and span.start < merged[-1].end:
            best[-1] = max(best[-1], span, key=lambda s: (s.end - s.start, s.kind != "PHONE_NUMBER", s.score, s.kind))
            whole = merged[-1]
            merged[-1] = Span(best[-1].kind, whole.start, max(whole.end, span.end), max(whole.score, span.score))
        elif span.end > span.start:
            merged.append(span)
            best.append(span)
    return merged


def _walk(value: Any, text: Callable[[str], str], depth: int) -> Any:
    if depth > MAX_JSON_DEPTH:
        raise TooLarge(f"nested deeper than {MAX_JSON_DEPTH} levels")
    if isinstance(value, str):
        return _nested(value, text, depth)
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        for key, item in value.items():
            name = text(str(key))
            # A key that is personal data is no context for its value.
            walked = _walk_beside(name, item, text, depth) if name == str(key) else _walk(item, text, depth + 1)
            # Two keys may turn into the same tag; both values stay.
            while name in result:
                name += "'"
            result[name] = walked
        return result
    if isinstance(value, list):
        return [_walk(item, text, depth + 1) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        shown = text(str(value))
        return value if shown == str(value) else shown
    return value


def _walk_beside(key: str, item: Any, text: Callable[[str], str], depth: int) -> Any:
    """A plain value is judged with its key beside it, for words such as `ssn` or `password` are its context."""
    if isinstance(item, (str, int, float)) and not isinstance(item, bool):
        shown = _nested(item, text, depth + 1) if isinstance(item, str) else str(item)
        prefix = f"{key}: "
        beside = text(prefix + shown)
        if beside.startswith(prefix):
            shown = beside[len(prefix) :]
        elif beside != prefix + shown:
            shown = beside
        return item if shown == str(item) else shown
    return _walk(item, text, depth + 1)


def _nested(value: str, text: Callable[[str], str], depth: int) -> str:
    """A string that holds a JSON object or list is walked as what it is (a tool call's arguments)."""
    stripped = value.strip()
    if stripped[:1] in {"{", "["} and stripped[-1:] in {"}", "]"}:
        try:
            inner = json.loads(stripped)
        except (ValueError, RecursionError):
            return text(value)
        return json.dumps(_walk(inner, text, depth + 1), ensure_ascii=False)
    return text(value)
