"""`portcullis redact`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.session import session
from core.errors import BadInput
from redaction.files import Format


def redact(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="- for standard input")] = "-",
    format: Annotated[Format, typer.Option("--format", help="text, json, or jsonl (a document a line)")] = "text",
    policy: Annotated[str, typer.Option(help="A log policy: default, patterns, or a YAML file of yours")] = "default",
    report: Annotated[Path | None, typer.Option(help="Counts by kind as JSON; never values")] = None,
) -> None:
    """One stream in, the redacted stream out: mail, phones, cards, IBANs, addresses, secrets. Names are not found yet.

    What is looked for, and from which confidence on, is the policy's. Exits 1 when something had to be withheld because it could not be judged.

    Example: portcullis redact app.log --report counts.json > app.redacted.log
    """
    from redaction import load
    from redaction.files import redact_stream

    try:
        source = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115  (closed by the with below)
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", where=file) from error
    with source:
        done = redact_stream(source, sys.stdout.buffer, format, load(policy))
    sys.stdout.buffer.flush()
    if report is not None:
        try:
            report.write_text(json.dumps(done.as_json()) + "\n", encoding="utf-8")
        except OSError as error:
            raise BadInput(f"cannot be written: {error.strerror}", where=str(report)) from error
    if session(context).verbose or done.withheld:
        session(context).say(json.dumps(done.as_json()))
    raise typer.Exit(1 if done.withheld else 0)
