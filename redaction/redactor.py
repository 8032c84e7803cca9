"""Replacing what was found: text, and JSON with its keys, numbers and nested documents."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import Any, Protocol

from core.errors import TooLarge

MAX_JSON_DEPTH = 64
WINDOW = 20_000
OVERLAP = 2_000
"""Long text is analysed in overlapping windows, so that the work grows with the length and memory does not. A match up to
OVERLAP characters long is found whole wherever it stands."""
BESIDE = 1_024
"""Characters of a value that are judged beside its key."""
REMEMBERED = 64
"""Characters of a text that is remembered while its document is walked."""


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

    def redact_parts(self, texts: Sequence[str]) -> tuple[list[str], dict[str, int]]:
        """Texts that are read one after the other: what is cut over several is found. Its tag stands where it began, and what the next
        parts hold of it goes."""
        spans = merge(self._find("".join(texts)))
        ends = [span.end for span in spans]
        shown: list[str] = []
        for start, end in pairwise(accumulate(map(len, texts), initial=0)):
            pieces, at, part = [], start, texts[len(shown)]
            for span in islice(spans, bisect_right(ends, start), None):
                if span.start >= end:
                    break
                pieces.append(part[at - start : max(at, span.start) - start])
                pieces += [f"<{span.kind}>"] if span.start >= start else []
                at = min(span.end, end)
            shown.append("".join([*pieces, part[at - start :]]))
        return shown, Redacted("", tuple(spans)).counts

    def redact_json(self, value: Any) -> tuple[Any, dict[str, int]]:
        """`value` with its strings, keys and telling numbers redacted, and the counts by kind. TooLarge beyond 64 levels."""
        judge = _Judge(self)
        return _walk(value, judge, 0), dict(sorted(judge.counts.items()))

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


class _Judge:
    """What looks at one document's texts, and counts. Short ones that come again (keys) are looked at once."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._known: dict[str, Redacted] = {}
        self.counts: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        found = self._known.get(text)
        if found is None:
            found = self._redactor.redact(text)
            if len(text) <= REMEMBERED:
                self._known[text] = found
        self.counts.update(found.counts)
        return found.text

    def parts(self, texts: Sequence[str]) -> list[str]:
        shown, counts = self._redactor.redact_parts(texts)
        self.counts.update(counts)
        return shown


def _walk(value: Any, judge: _Judge, depth: int) -> Any:
    if depth > MAX_JSON_DEPTH:
        raise TooLarge(f"nested deeper than {MAX_JSON_DEPTH} levels")
    if isinstance(value, str):
        return _nested(value, judge, depth)
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        for key, item in value.items():
            name = judge(str(key))
            # A key that is personal data is no context for its value.
            walked = _walk_beside(name, item, judge, depth) if name == str(key) else _walk(item, judge, depth + 1)
            # Two keys may turn into the same tag; both values stay.
            while name in result:
                name += "'"
            result[name] = walked
        return result
    if isinstance(value, list):
        return [_walk(item, judge, depth + 1) for item in _joined(value, judge)]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        shown = judge(str(value))
        return value if shown == str(value) else shown
    return value


def _joined(items: list[Any], judge: _Judge) -> list[Any]:
    """A message's content in parts (`{"type": "text", "text": …}`): what is cut over two of them is replaced before each is walked by
    itself. What only one of them shows, because the next one's beginning spoils its end, is found then."""
    places = [at for at, item in enumerate(items) if isinstance(item, dict) and isinstance(item.get("text"), str)]
    if len(places) < 2:
        return items
    shown = judge.parts([items[at]["text"] for at in places])
    replaced = list(items)
    for at, text in zip(places, shown, strict=True):
        replaced[at] = {**items[at], "text": text}
    return replaced


def _walk_beside(key: str, item: Any, judge: _Judge, depth: int) -> Any:
    """A plain value is judged with its key beside it, for words such as `ssn` or `password` are its context. A long one only as far as
    that reaches: each document nested in a string would otherwise be looked at once more for every level."""
    if isinstance(item, (str, int, float)) and not isinstance(item, bool):
        shown = _nested(item, judge, depth + 1) if isinstance(item, str) else str(item)
        prefix, rest = f"{key}: ", shown[BESIDE:]
        near = prefix + shown[:BESIDE]
        beside = judge(near)
        if beside != near:
            shown = beside.removeprefix(prefix) + rest
        return item if shown == str(item) else shown
    return _walk(item, judge, depth + 1)


def _nested(value: str, judge: _Judge, depth: int) -> str:
    """A string that holds a JSON object or list is walked as what it is (a tool call's arguments)."""
    stripped = value.strip()
    if stripped[:1] in {"{", "["} and stripped[-1:] in {"}", "]"}:
        try:
            inner = json.loads(stripped)
        except (ValueError, RecursionError):
            return judge(value)
        return json.dumps(_walk(inner, judge, depth + 1), ensure_ascii=False)
    return judge(value)
