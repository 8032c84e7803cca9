"""`portcullis policy whatif`: what recorded decisions would have been under another bundle, before it is switched on."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.session import Session, session, table
from core.decision import DOMAINS, MANDATORY, Domain
from core.errors import BadInput, Broken, NotFound

if TYPE_CHECKING:
    from rich.table import Table

    from api.compose import Management
    from core.principal import Principal
    from evidence.reader import Reader
    from evidence.replay import FolderSource
    from policies.recompute import Candidate
    from policies.whatif import Change, Recorded, Report, Tally

UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
DEFAULT_SINCE = "7d"
SHOWN_ROWS = 20
PIPED_WIDTH = 200
WORDS = {
    "newly_denied": "newly denied",
    "newly_allowed": "newly allowed",
    "other_reasons": "other reasons",
    "other_obligations": "other obligations",
}


def whatif(
    context: typer.Context,
    new: Annotated[Path | None, typer.Argument(metavar="NEW", help="The bundle file to try")] = None,
    extra: Annotated[
        list[Path] | None,
        typer.Option("--extra", help="Instead of NEW: the shipped rules with this folder of your own (and no other)"),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Compare with this bundle file over the same inputs, not with what was recorded")
    ] = None,
    since: Annotated[str | None, typer.Option(help=f"How far back: 30m, 12h, 7d, 4w [default: {DEFAULT_SINCE}]")] = None,
    start: Annotated[str | None, typer.Option("--from", help="A day, 2026-11-01, UTC; instead of --since")] = None,
    end: Annotated[str | None, typer.Option("--to", help="A day, up to its end, UTC")] = None,
    domain: Annotated[Domain | None, typer.Option(help="Only decisions of this domain")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's decisions")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write everything, as --json shows it, here")] = None,
) -> None:
    """Recomputes recorded decisions under another bundle and lists which would change, by rule, team and model.

    Every input is decided afresh, as it was recorded, by the bundle's Wasm module where it brings one. Decisions that no policy
    made, or whose input is not there any more, are counted apart. Exits 0 when nothing would change, 1 when something would, or
    when there was nothing to compare.

    Example: portcullis policy whatif --since 7d new.tar.gz
    """
    from policies.recompute import Recompute
    from policies.whatif import compare

    here = session(context)
    window = _window(since, start, end)
    candidate, notes = _candidate(here, new, extra)
    held = None if baseline is None else _bundle(here, baseline, "the baseline")
    candidates = [candidate] if held is None else [held[0], candidate]
    notes += [] if held is None else held[1]
    reader, source = _evidence(here)
    changed: list[dict[str, Any]] = []

    def keep(change: Change) -> None:
        changed.append(change.as_json())

    with Recompute(candidates) as recompute:
        report = compare(
            _watched(_recorded(reader, source, window, tenant, domain, whole=held is None), reader),
            source,
            recompute,
            between=held is not None,
            each=keep if here.json or output is not None else None,
        )
        engine, revision = recompute.engines[-1].name, recompute.engines[-1].revision
    document = {
        "new": {"source": str(new) if new else "shipped rules and --extra", "revision": revision, "engine": engine},
        "baseline": "recorded" if held is None else {"source": str(baseline), "revision": held[0].loaded.bundle.revision},
        "filter": {"since": window[0], "until": window[1], "tenant": tenant, "domain": domain},
        **report.as_json(),
        "decisions_changed": changed,
        "notes": notes,
    }
    if output is not None:
        _write(output, document)
    here.result(document, "\n".join(_summary(document, report)))
    if not here.json:
        _print(here, report)
    raise typer.Exit(0 if report.same else 1)


# --- what is asked for --------------------------------------------------------------------------------------------------


def _window(since: str | None, start: str | None, end: str | None) -> tuple[int | None, int | None]:
    """From which second to before which. BadInput for what is no time, and for --since beside --from or --to."""
    from cli.evidence import seconds_of

    if start is None and end is None:
        return ago(since or DEFAULT_SINCE), None
    if since is not None:
        raise BadInput("--since goes without --from and --to: the one counts back from now, the others name days")
    return seconds_of(start), seconds_of(end, after=1)


def ago(text: str) -> int:
    """The second that lies so long back (30m, 12h, 7d, 4w). BadInput for what is no length of time."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text)
    if match is None:
        raise BadInput(f"{text[:40]!r} is no length of time; write 30m, 12h, 7d or 4w", where="--since")
    return int(time.time()) - int(match[1]) * UNITS[match[2]]


def _candidate(here: Session, new: Path | None, extra: list[Path] | None) -> tuple[Candidate, list[str]]:
    from policies.check import load_tree
    from policies.recompute import Candidate

    if (new is None) == (not extra):
        raise BadInput("name either a bundle file or, with --extra, a folder of your own rules beside the shipped ones")
    if new is not None:
        return _bundle(here, new, "the new bundle")
    return Candidate(load_tree(None, extra or ()), deadline_ms=here.settings.policy.deadline_ms), []


def _bundle(here: Session, path: Path, what: str) -> tuple[Candidate, list[str]]:
    """A bundle file, and what must be said about it. No signature is asked for: nothing that acts will decide by it here."""
    from policies.distribution import read_file
    from policies.recompute import Candidate

    found = read_file(path)
    notes = []
    if found.about.get("mandatory") != {name: list(MANDATORY[name]) for name in DOMAINS}:
        notes.append(
            f"{what} was built by a version with other mandatory rules; this version asks for its own, "
            "and denies what a bundle without them would decide"
        )
    return Candidate(found.loaded, found.wasm, here.settings.policy.deadline_ms), notes


# --- what is on record --------------------------------------------------------------------------------------------------


def _evidence(here: Session) -> tuple[Reader, FolderSource]:
    """The evidence folder, with everything in the log that waits to get there."""
    from evidence.reader import Reader
    from evidence.replay import FolderSource

    async def work(management: Management, _: Principal) -> Path:
        await asyncio.to_thread(management.sequencer.integrate_if_free)
        return Path(management.settings.evidence.dir)

    folder = here.run(work)
    return Reader(folder), FolderSource(folder)


def _recorded(
    reader: Reader,
    source: FolderSource,
    window: tuple[int | None, int | None],
    tenant: str | None,
    domain: Domain | None,
    *,
    whole: bool,
) -> Iterator[tuple[int, Recorded | None]]:
    """Each record's place in the log, with its decision where it has one of this domain. `whole`: what was decided is wanted too."""
    since, until = window
    for record in reader.records(tenant=tenant, since=since, until=until):
        decision = record["decision"]
        wanted = decision is not None and domain in {None, decision.get("domain")}
        yield record["seq"], _decision(source, record, decision, whole=whole) if wanted else None


def _decision(source: FolderSource, record: Mapping[str, Any], decision: Mapping[str, Any], *, whole: bool) -> Recorded:
    from evidence.replay import whole_decision
    from policies.recompute import outcome
    from policies.whatif import Cannot, Recorded

    made = None
    cannot: Cannot | None = None
    digest = record["digests"].get("input", "")
    if not digest or not decision.get("policy_revision"):
        cannot = "no_input"
    elif decision.get("domain") not in DOMAINS:
        cannot = "unreadable"
    elif digest != decision.get("input_digest"):
        cannot = "other_input"
    elif whole:
        try:
            made = outcome(whole_decision(source, record))
        except (NotFound, Broken, BadInput):
            cannot = "decision_lost"
    decision_id = str(decision.get("decision_id", ""))
    return Recorded(decision_id, record["tenant"], decision.get("domain", ""), record["time"], digest, made, cannot)


def _watched(found: Iterator[tuple[int, Recorded | None]], reader: Reader) -> Iterator[Recorded]:
    """The decisions, with a progress bar on stderr where somebody looks at it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("records", total=reader.checkpoint().size)
        for seq, decision in found:
            if seq % 256 == 0:
                progress.update(task, completed=seq)
            if decision is not None:
                yield decision


# --- what is shown ------------------------------------------------------------------------------------------------------


def _summary(document: Mapping[str, Any], report: Report) -> list[str]:
    since, until = document["filter"]["since"], document["filter"]["until"]
    against = "what was recorded" if document["baseline"] == "recorded" else f"the bundle {document['baseline']['source']}"
    new = document["new"]
    lines = [
        f"{new['source']}, revision {new['revision'][:19]}…, by the {new['engine']} engine, beside {against}",
        f"{report.decisions} decisions of {report.inputs} distinct inputs, from {_day(since)} to {_day(until)}",
        f"{report.unchanged} unchanged, {report.changed} changed, {report.decisions - report.compared} cannot be compared",
    ]
    if report.compared == 0:
        lines.append("nothing was compared, so this says nothing about the new bundle")
    lines += [f"note: {note}" for note in document["notes"]]
    return lines


def _day(unix: int | None) -> str:
    return "the open end" if unix is None else dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _print(here: Session, report: Report) -> None:
    """The tables that have rows. In a pipe nothing wraps at a width that nobody has."""
    if not here.out.is_terminal:
        here.out.width = PIPED_WIDTH
    for shown in _tables(report):
        if shown.row_count:
            here.out.print("", shown, sep="\n")
    if report.changed:
        here.out.print("\nwhy one was decided as it was: portcullis policy explain ID")


def _tables(report: Report) -> Iterator[Table]:
    """A table of changes, one for each way to group them, and one of what cannot be compared."""
    from policies.whatif import CANNOT, ordered

    kinds = _grouped("CHANGE")
    for kind, tally in report.kinds.items():
        if tally.decisions:
            _row(kinds, tally, WORDS[kind])
    yield kinds
    for title, groups in (("RULE", report.by_rule), ("TEAM", report.by_team), ("MODEL", report.by_model)):
        rows = ordered(groups)
        shown = _grouped(title, "CHANGE")
        for name, kind, tally in rows[:SHOWN_ROWS]:
            _row(shown, tally, _plain(name) or "(none)", WORDS[kind])
        if len(rows) > SHOWN_ROWS:
            shown.add_row(f"and {len(rows) - SHOWN_ROWS} more; --json has all")
        yield shown
    lost = _grouped("CANNOT BE COMPARED")
    for code, tally in sorted(report.cannot.items()):
        _row(lost, tally, CANNOT[code])
    yield lost


def _grouped(*columns: str) -> Table:
    """An id is of no use when it is cut short, so what stands before it wraps."""
    shown = table(*columns, "DECISIONS", "INPUTS", "FOR EXAMPLE")
    for column in shown.columns:
        column.overflow = "fold"
    shown.columns[-1].no_wrap = True
    return shown


def _row(shown: Table, tally: Tally, *names: str) -> None:
    shown.add_row(*names, str(tally.decisions), str(len(tally.inputs)), tally.examples[0])


def _plain(name: str) -> str:
    """A name out of an input, without what a terminal or Rich would obey."""
    from rich.markup import escape

    from policies.messages import clean

    return escape(clean(name))


def _write(path: Path, document: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", where=str(path)) from error
