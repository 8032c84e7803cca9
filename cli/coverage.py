"""`portcullis policy coverage`: which rules real traffic reaches; and what `exemption list --uses` counts."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.session import Session, session, table
from core.errors import BadInput, Broken, NotFound

if TYPE_CHECKING:
    from rich.table import Table

    from api.compose import Management
    from core.principal import Principal
    from policies.catalogue import Catalogue
    from policies.coverage import Traffic

DEFAULT_SINCE = "30d"


def coverage(
    context: typer.Context,
    since: Annotated[str, typer.Option(help="How far back: 12h, 30d, 4w; all for the whole log")] = DEFAULT_SINCE,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's decisions")] = None,
) -> None:
    """How often each rule in force was evaluated and spoke, from the evidence log: never evaluated, never fired, always fires.

    Example: portcullis policy coverage --since 30d
    """
    from cli.whatif import ago

    here = session(context)
    start = None if since == "all" else ago(since)
    traffic, lost = traffic_of(here, start, tenant)
    span = "the whole log" if since == "all" else since
    notes = [f"{lost} decisions are counted by their first 20 reasons: the rest was erased or changed on disk"] if lost else []
    document = {"since": start, "tenant": tenant, **traffic.as_json(), "notes": notes}
    if here.json:
        here.result(document)
        return
    here.result("\n".join([f"{traffic.decisions} decisions in {span}", *(f"note: {note}" for note in notes)]))
    here.result(None, _table(traffic))
    here.result("\n".join(["", *_remarks(traffic, span)]))


def _table(traffic: Traffic) -> Table:
    shown = table("RULE", "EVALUATED", "DENIED", "WARNED", "DRYRUN", "EXEMPTED", "FIRES")
    shown.columns[0].no_wrap = True
    for name in sorted(traffic.rules):
        rule = traffic.rules[name]
        counts = (rule.evaluated, rule.denied, rule.warned, rule.dryrun, rule.exempted)
        shown.add_row(rule.rule, *map(str, counts), "" if rule.share is None else f"{rule.share:.1%}")
    return shown


def _remarks(traffic: Traffic, span: str) -> list[str]:
    """What to look at: rules that may be dead, and those that may be wrong."""
    states: dict[str, list[str]] = {}
    for name in sorted(traffic.rules):
        states.setdefault(traffic.rules[name].state, []).append(name)
    said = [("never evaluated", f"Never evaluated in {span}"), ("never fired", f"Never fired in {span}")]
    said += [("always fires", f"Always fires in {span}"), ("not in force", "On record, and not in force any more")]
    lines = [f"{text}: {', '.join(states[state])}" for state, text in said if state in states]
    if traffic.others:
        lines.append(f"Denied by no rule: {', '.join(f'{name} {times}' for name, times in sorted(traffic.others.items()))}")
    return lines


def traffic_of(here: Session, since: int | None, tenant: str | None = None) -> tuple[Traffic, int]:
    """The rules in force over the log's decisions since then, and how many of these could not be opened whole."""
    from policies.coverage import count
    from policies.running import running_loaded

    async def rules(management: Management, _: Principal) -> Catalogue:
        return (await running_loaded(management.database, here.settings.policy, management.clock)).catalogue

    lost: list[str] = []
    return count(_decisions(here, since, tenant, lost), here.run(rules)), len(lost)


def _decisions(
    here: Session, since: int | None, tenant: str | None, lost: list[str]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """One pass over the log, with a bar on stderr where somebody looks. A log that nothing was written to yet has no decisions."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from evidence.reader import Reader
    from evidence.replay import FolderSource, whole_decision

    async def work(management: Management, _: Principal) -> Path:
        await asyncio.to_thread(management.sequencer.integrate_if_free)
        return Path(management.settings.evidence.dir)

    folder = here.run(work)
    try:
        reader, source = Reader(folder), FolderSource(folder)
        size = reader.checkpoint().size
    except NotFound:
        return
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("records", total=size)
        for record in reader.records(tenant=tenant, since=since):
            if record["seq"] % 256 == 0:
                progress.update(task, completed=record["seq"])
            if record["decision"] is None:
                continue
            try:
                whole = whole_decision(source, record)
            except (NotFound, Broken, BadInput):
                lost.append(record["id"])
                whole = record["decision"]
            yield record["time"], whole


def day(unix: int | None) -> str:
    return "never" if unix is None else dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%Y-%m-%d")
