"""One stream in, the redacted stream out. Fails closed: what the detector could not judge is withheld, and counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from core import jsonread
from core.errors import BadInput
from redaction.redactor import Redactor

Format = Literal["text", "json", "jsonl"]
MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_LINE = 1024 * 1024
"""A longer line is judged in pieces, so that memory stays bounded."""
OVERLAP = 2_000
WITHHELD = "<WITHHELD>"


@dataclass
class Report:
    """Counts by kind, never values. `withheld`: lines that the detector failed on; `unreadable`: JSON lines judged as text."""

    lines: int = 0
    withheld: int = 0
    unreadable: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, object]:
        return {
            "lines": self.lines,
            "withheld": self.withheld,
            "unreadable": self.unreadable,
            "counts": dict(sorted(self.counts.items())),
        }


def redact_stream(source: BinaryIO, sink: BinaryIO, form: Format, redactor: Redactor) -> Report:
    """Redacts `source` into `sink`, line by line (`json`: the whole document, BadInput when it is none).

    Bytes that are not UTF-8 come out as U+FFFD: what cannot be read cannot be judged.
    """
    report = Report()
    if form == "json":
        value, counts = redactor.redact_json(jsonread.loads(source.read(MAX_JSON_BYTES + 1), max_bytes=MAX_JSON_BYTES))
        report.counts.update(counts)
        report.lines = 1
        sink.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        return report
    for piece in _pieces(source):
        report.lines += piece.endswith("\n")
        sink.write(_safely(piece, form, redactor, report).encode())
    return report


def _pieces(source: BinaryIO) -> Iterator[str]:
    """Whole lines, also where a line is longer than MAX_LINE: then pieces of it, cut at white space where there is some."""
    rest = ""
    while data := source.readline(MAX_LINE):
        text = rest + data.decode("utf-8", "replace")
        rest = ""
        if not text.endswith("\n") and len(data) == MAX_LINE:
            cut = max(text.rfind(" ", len(text) - OVERLAP), text.rfind("\t", len(text) - OVERLAP))
            if cut > 0:
                text, rest = text[:cut], text[cut:]
        yield text
    if rest:
        yield rest


def _safely(text: str, form: Format, redactor: Redactor, report: Report) -> str:
    ending = text[len(text.rstrip("\r\n")) :]
    body = text[: len(text) - len(ending)]
    try:
        return _redacted(body, form, redactor, report) + ending
    except Exception:
        report.withheld += 1
        return WITHHELD + ending


def _redacted(body: str, form: Format, redactor: Redactor, report: Report) -> str:
    if form == "jsonl" and body.strip():
        try:
            value = jsonread.loads(body.encode(), max_bytes=MAX_LINE)
        except BadInput:
            report.unreadable += 1
        else:
            result, counts = redactor.redact_json(value)
            report.counts.update(counts)
            return json.dumps(result, ensure_ascii=False)
    found = redactor.redact(body)
    report.counts.update(found.counts)
    return found.text
