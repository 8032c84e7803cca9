"""A report for an auditor: one framework, one window, and for each control a status that leads to the records behind it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.clock import SystemClock
from core.errors import BadInput, ConfigError
from core.ports import Clock
from evidence import catalogue
from evidence.catalogue import Control
from evidence.observe import Observed, observe
from evidence.queries import QUERIES, Status
from evidence.reader import Reader
from evidence.record import INSTALLATION

LINKED = 25
"""Records that a row links to; their number is always stated."""
BUCKETS = 24
STATUSES: tuple[Status, ...] = ("evidenced", "not evidenced", "organisational", "not applicable")


@dataclass(frozen=True, slots=True)
class Row:
    """One control. `records` are the first LINKED of `record_count`."""

    id: str
    title: str
    articles: list[str]
    level: str
    applies_from: str
    status: Status
    sentence: str
    remains: str
    counts: dict[str, int]
    record_count: int
    records: list[int]
    findings: list[str]


@dataclass(frozen=True, slots=True)
class Reference:
    """A record that a row links to."""

    seq: int
    id: str
    time: int
    kind: str
    subject: str
    verdict: str
    rules: list[str]


@dataclass(frozen=True, slots=True)
class Bucket:
    start: int
    allowed: int
    denied: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a rendering shows; `as_json` is the machine's form."""

    framework: str
    title: str
    text_version: str
    tenant: str | None
    since: int | None
    until: int
    generated: int
    origin: str
    size: int
    root: str
    totals: dict[str, int]
    rows: list[Row]
    findings: list[str]
    references: list[Reference]
    timeline: list[Bucket]

    def as_json(self) -> dict[str, Any]:
        statuses = {status: sum(row.status == status for row in self.rows) for status in STATUSES}
        return {"format": "portcullis.dev/report/v1", **asdict(self), "statuses": statuses}


def frameworks() -> list[dict[str, Any]]:
    """What `--framework list` shows."""
    return [
        {"id": known.id, "title": known.title, "text_version": known.text_version, "controls": len(known.controls)}
        for known in catalogue.frameworks()
    ]


def build(
    framework: str,
    reader: Reader,
    *,
    tenant: str | None = None,
    since: int | None = None,
    until: int | None = None,
    clock: Clock | None = None,
) -> Report:
    """The report on `since` <= time < `until` (now, when None). Recomputes the whole log first.

    NotFound for an unknown framework or when there is no log, InvalidProof when the log does not give its signed root, BadInput for
    a window that ends before it begins.
    """
    chosen = catalogue.framework(framework)
    now = (clock or SystemClock()).now_unix()
    end = now + 1 if until is None else until
    if since is not None and since >= end:
        raise BadInput("the window ends before it begins", where="until")
    checkpoint = reader.log.audit()
    records = (record for record in reader.records() if tenant is None or record["tenant"] in (tenant, INSTALLATION))
    seen = observe(records, since=since, until=end)
    rows = [_row(control, seen) for control in chosen.controls]
    wanted = {seq for row in rows for seq in row.records}
    findings = [f"{row.id}: {finding}" for row in rows for finding in row.findings]
    findings += [f"seq {mark.seq}: a finding was recorded about {mark.subject}" for mark in seen.of("finding")]
    findings += [f"seq {seq} is dated well before records that precede it: a clock was wrong" for seq in seen.wrong_clock]
    return Report(
        framework=chosen.id,
        title=chosen.title,
        text_version=chosen.text_version,
        tenant=tenant,
        since=since,
        until=end,
        generated=now,
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=base64.b64encode(checkpoint.root).decode(),
        totals=_totals(seen),
        rows=rows,
        findings=findings,
        references=list(_references(reader, wanted)),
        timeline=_timeline(seen),
    )


def _row(control: Control, seen: Observed) -> Row:
    query = QUERIES.get(control.test)
    if query is None:
        raise ConfigError(f"there is no query {control.test!r}", where=control.id)
    outcome = query(seen)
    seqs = sorted(set(outcome.seqs))
    return Row(
        id=control.id,
        title=control.title,
        articles=control.articles,
        level=control.level,
        applies_from=control.applies_from,
        status=outcome.status,
        sentence=outcome.sentence,
        remains=control.remains,
        counts={**outcome.counts, "decisions bearing on it": seen.controls[control.id]},
        record_count=len(seqs),
        records=seqs[:LINKED],
        findings=list(outcome.findings),
    )


def _totals(seen: Observed) -> dict[str, int]:
    allowed = sum(use.allow for use in seen.uses)
    return {"records": seen.records, "decisions": len(seen.uses), "allowed": allowed, "denied": len(seen.uses) - allowed}


def _references(reader: Reader, wanted: set[int]) -> Iterator[Reference]:
    if not wanted:
        return
    for item in reader.stored(start=min(wanted), end=max(wanted) + 1):
        if item.seq in wanted:
            record = item.record
            decision = record["decision"] or {}
            verdict = "" if not decision else "allowed" if decision.get("allow") is True else "denied"
            rules = sorted({violation["rule"] for violation in decision.get("violations", [])})
            yield Reference(item.seq, record["id"], record["time"], record["kind"], record["subject"], verdict, rules)


def _timeline(seen: Observed) -> list[Bucket]:
    """Decisions over the time in which there were any, in at most BUCKETS equal parts."""
    if not seen.uses:
        return []
    first, last = min(use.time for use in seen.uses), max(use.time for use in seen.uses)
    width = max(1, -(-(last - first + 1) // BUCKETS))
    count = (last - first) // width + 1
    allowed, denied = [0] * count, [0] * count
    for use in seen.uses:
        (allowed if use.allow else denied)[(use.time - first) // width] += 1
    return [Bucket(first + at * width, allowed[at], denied[at]) for at in range(count)]


def render(report: Report, form: Literal["html", "json"]) -> bytes:
    """The report as one self-contained HTML page, or as JSON. BadInput for any other form."""
    if form == "json":
        return json.dumps(report.as_json(), ensure_ascii=False, indent=2, sort_keys=True).encode() + b"\n"
    if form == "html":
        return _html(report)
    raise BadInput(f"{str(form)[:20]!r} is no form of a report; there are html and json")


def _html(report: Report) -> bytes:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["moment"] = _moment
    data: Mapping[str, Any] = report.as_json()
    highest = max((bucket.allowed + bucket.denied for bucket in report.timeline), default=1)
    page = environment.get_template("report.html").render(report=data, statuses=STATUSES, highest=highest)
    return page.encode()


def _moment(unix: int | None) -> str:
    if unix is None:
        return "the beginning"
    try:
        return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{unix} s"
