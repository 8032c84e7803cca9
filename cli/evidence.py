"""`portcullis evidence` and `portcullis report`: the log that others can check, packages of it, and what it shows an auditor."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.session import read_bytes, session, table
from core.errors import BadInput, InvalidProof

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal

app = typer.Typer(help="The evidence log: integrate, take away, verify, recompute.", no_args_is_help=True)

Tenant = Annotated[str | None, typer.Option(help="Only this tenant's records")]
Since = Annotated[str | None, typer.Option("--from", help="A day, 2026-11-01, UTC")]
Until = Annotated[str | None, typer.Option("--to", help="A day, up to its end, UTC")]


def seconds_of(day: str | None, *, after: int = 0) -> int | None:
    """The first second of `day`, `after` days later."""
    if day is None:
        return None
    try:
        return int(dt.datetime.combine(dt.date.fromisoformat(day), dt.time(), dt.UTC).timestamp()) + after * 86_400
    except ValueError as error:
        raise BadInput(f"{day[:40]!r} is not a day; write it as 2026-11-01") from error


@app.command()
def sequence(
    context: typer.Context,
    once: Annotated[bool, typer.Option(help="Integrate what is waiting, then end")] = False,
) -> None:
    """Integrates what every service recorded into the signed Merkle log, until it is told to stop.

    One sequencer per log holds the lease; a second one stands by for it (with --once: exit status 3).
    """
    here = session(context)

    async def work(management: Management, _: Principal) -> int:
        if once:
            return await asyncio.to_thread(management.sequencer.integrate_once)
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        here.say("integrating; stop with Ctrl-C")
        await asyncio.to_thread(management.sequencer.run, stop)
        return 0

    count = here.run(work)
    here.result({"integrated": count} if once else {"stopped": True}, f"{count} records integrated" if once else "stopped")


@app.command()
def export(
    context: typer.Context,
    package: Annotated[Path, typer.Argument(help="The zip to write")],
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
    names: Annotated[bool, typer.Option("--names", help="Also what opens the people's references; handle with care")] = False,
) -> None:
    """Records with their proofs, inputs and policy bundles, to be verified offline by anybody who has the log's public key."""

    async def work(management: Management, _: Principal) -> Any:
        from evidence.package import export as write

        await asyncio.to_thread(management.sequencer.integrate_if_free)
        return await write(
            package,
            Path(management.settings.evidence.dir),
            origin=management.settings.evidence.origin,
            tenant=tenant,
            since=seconds_of(since),
            until=seconds_of(until, after=1),
            with_names=names,
            commitments=management.commitments if names else None,
        )

    done = session(context).run(work)
    shown = {"package": str(done.path), "records": done.records, "first": done.first, "last": done.last, "digest": done.digest}
    session(context).result(shown, f"{done.path}: {done.records} records, {done.digest}")


@app.command()
def verify(
    context: typer.Context,
    package: Annotated[Path, typer.Argument()],
    key: Annotated[Path | None, typer.Option(help="The log's public key, had from somewhere else than the package")] = None,
    earlier: Annotated[Path | None, typer.Option(help="A checkpoint seen before, which the log must extend")] = None,
) -> None:
    """Checks a package offline: signatures, inclusion, consistency, completeness. Exits 1 when it does not hold.

    Without --key the state folder's own key is pinned where there is one; with neither the signer is not pinned: exit 1.
    """
    from evidence.verifier import VerificationFailed
    from evidence.verifier import verify as check

    here = session(context)
    own = Path(here.settings.evidence.dir) / "keys" / "log.pub"
    pinned = key or (own if own.exists() else None)
    try:
        result = check(
            package,
            read_bytes(str(pinned)).decode() if pinned else None,
            earlier=read_bytes(str(earlier)) if earlier else None,
        )
    except VerificationFailed as error:
        raise InvalidProof(f"NOT VERIFIED: {error}", where=str(package)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("cannot be read", where=str(package)) from error
    shown = {"verified": result.verified, "pinned": result.pinned, "summary": result.summary, "warnings": list(result.warnings)}
    here.result(shown, "\n".join([result.summary, *(f"warning: {warning}" for warning in result.warnings)]))
    raise typer.Exit(0 if result.verified else 1)


@app.command()
def replay(context: typer.Context, what: Annotated[str, typer.Argument(metavar="PACKAGE or ID")]) -> None:
    """Recomputes decisions from the inputs and bundles that were kept; a package needs nothing else. Exits 1 on a difference."""
    from evidence.replay import FolderSource, PackageSource
    from evidence.replay import replay as recompute
    from policies.engine import load_bundle

    here = session(context)
    if Path(what).is_file():
        report = recompute(PackageSource(Path(what)), load_bundle)
    else:

        async def work(management: Management, _: Principal) -> Any:
            await asyncio.to_thread(management.sequencer.integrate_if_free)
            return recompute(FolderSource(Path(management.settings.evidence.dir), what), load_bundle)

        report = here.run(work)
    counts = ", ".join(f"{report.count(verdict)} {verdict}" for verdict in ("equal", "different", "cannot"))
    lines = [f"{item.verdict}: record {item.seq}: {item.note}" for item in report.items if item.verdict != "equal"]
    here.result(report.as_json(), "\n".join([*lines, counts]))
    raise typer.Exit(0 if report.agrees else 1)


@app.command()
def prove(context: typer.Context, id: Annotated[str, typer.Argument(help="A record's or decision's id")]) -> None:
    """The proof (C2SP tlog-proof) that one record is in the log."""

    async def work(management: Management, _: Principal) -> str:
        from evidence.reader import Reader

        await asyncio.to_thread(management.sequencer.integrate_if_free)
        return Reader(Path(management.settings.evidence.dir)).prove(id)

    proof = session(context).run(work)
    session(context).result({"id": id, "proof": proof}, proof)


@app.command()
def note(
    context: typer.Context,
    kind: Annotated[Literal["review", "incident", "drill", "training", "override"], typer.Option(help="What was done")],
    subject: Annotated[str, typer.Option(help="What it was about: llama-3@7, a decision's id, a control")],
    text: Annotated[str, typer.Option("--message", "-m", help="Kept sealed beside the log; the record names its digest only")],
) -> None:
    """Records what people did, so that reports can count it.

    Example: portcullis evidence note --kind review --subject llama-3@7 -m "quarterly review, no findings"
    """
    if not (0 < len(subject) <= 256 and subject.isprintable() and 0 < len(text.strip()) <= 10_000):
        raise BadInput("a note needs a subject of at most 256 printable characters and a text of at most 10,000")

    async def work(management: Management, operator: Principal) -> str:
        actor = await management.commitments.ref(operator.tenant, operator.id)
        return await management.recorder.note(kind, actor=actor, tenant=operator.tenant, subject=subject, text=text)

    made = session(context).run(work)
    session(context).result({"id": made, "kind": kind}, made)


@app.command()
def show(context: typer.Context, id: Annotated[str, typer.Argument(help="A record's or decision's id")]) -> None:
    """One record of the log, with the note or the decision's input that is kept beside it."""

    async def work(management: Management, _: Principal) -> dict[str, Any]:
        from evidence.payloads import Payloads
        from evidence.reader import Reader

        await asyncio.to_thread(management.sequencer.integrate_if_free)
        folder = Path(management.settings.evidence.dir)
        record = Reader(folder).find(id).record
        payloads = Payloads(folder)
        kept = {
            name: payloads.get(record["tenant"], record["digests"][name])
            for name in ("note", "input")
            if name in record["digests"]
        }
        shown = {name: json.loads(data) for name, data in kept.items()}
        if "note" in shown:
            shown["note"] = shown["note"]["text"]
        return {"record": record, **shown}

    session(context).result(session(context).run(work))


def report(
    context: typer.Context,
    framework: Annotated[str, typer.Option(help="A framework's name; list names them")],
    format: Annotated[Literal["html", "json"], typer.Option("--format")] = "html",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write")] = None,
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """What the records show of a framework's controls: evidenced, not evidenced, organisational or not applicable.

    Example: portcullis report --framework eu-ai-act -o report.html
    """
    from evidence import report as reports

    here = session(context)
    if framework == "list":
        known = reports.frameworks()
        here.result(known, "\n".join(f"{found['id']}: {found['title']}" for found in known))
        return
    if output is None:
        raise BadInput("name the file to write with -o")

    async def work(management: Management, _: Principal) -> Any:
        from evidence.reader import Reader

        await asyncio.to_thread(management.sequencer.integrate_if_free)
        reader = Reader(Path(management.settings.evidence.dir))
        return reports.build(framework, reader, tenant=tenant, since=seconds_of(since), until=seconds_of(until, after=1))

    made = here.run(work)
    try:
        output.write_bytes(reports.render(made, format))
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", where=str(output)) from error
    shown = table("CONTROL", "STATUS", "RECORDS", "TITLE")
    rows = []
    for row in made.rows:
        shown.add_row(row.id, row.status, str(row.record_count), row.title)
        rows.append({"control": row.id, "status": row.status, "records": row.record_count})
    here.result({"report": str(output), "rows": rows}, shown)
