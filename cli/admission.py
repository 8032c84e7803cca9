"""`portcullis check`, `portcullis admission`: manifests and reviews through the webhook's own decision; the webhook itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.serving import Listener, stop_on_signals
from cli.serving import serve as listen
from cli.session import read_bytes, session

if TYPE_CHECKING:
    from admission.check import Verdict
    from admission.compose import AdmissionDoor

T = TypeVar("T")
app = typer.Typer(help="The admission webhook, and reviews by hand.", no_args_is_help=True)
CONCURRENCY = 512
"""Beyond this many open requests uvicorn answers 503, which the API server takes as a failure and denies by failurePolicy."""


def _with_door(context: typer.Context, work: Callable[[AdmissionDoor], Awaitable[T]]) -> T:
    async def whole() -> T:
        from admission.compose import build
        from lineage.deployments import Deployments
        from lineage.registry import Registry

        door = await build(session(context).settings, os.environ, models=Registry, deployments=Deployments)
        try:
            return await work(door)
        finally:
            await door.close()

    return asyncio.run(whole())


def check(
    context: typer.Context,
    paths: Annotated[list[str], typer.Argument(help="Files and folders; - for standard input")],
    namespace: Annotated[str, typer.Option(help="Of manifests that name none, as with kubectl -n")] = "default",
) -> None:
    """Manifests through the same decision as the webhook; reserves and records nothing. Exits 1 when one is denied.

    Example: portcullis check examples/manifests
    """
    from admission.check import check as judge
    from admission.check import read_manifests, read_text

    documents = read_manifests([Path(path) for path in paths if path != "-"])
    if "-" in paths:
        documents += read_text(read_bytes("-"), "-")
    verdicts = _with_door(context, lambda door: judge(documents, door=door.service, config=door.config, namespace=namespace))
    session(context).result([verdict.as_json() for verdict in verdicts], "\n".join(_line(verdict) for verdict in verdicts))
    words = {verdict.verdict for verdict in verdicts}
    raise typer.Exit(1 if "denied" in words else 2 if "unreadable" in words else 0)


def _line(verdict: Verdict) -> str:
    """One document: where, what, the verdict, then each reason on a line of its own."""
    found = f"{verdict.verdict:12} {verdict.source} #{verdict.index} {verdict.subject}".rstrip()
    reasons = [f"    {v.rule}: {v.message}" for v in verdict.violations] or (
        [f"    {verdict.message}"] if verdict.message else []
    )
    return "\n".join([found, *reasons, *(f"    {v.mode}: {v.rule}: {v.message}" for v in verdict.warnings)])


@app.command()
def review(context: typer.Context, file: Annotated[str, typer.Option("--file", "-f", help="- for standard input")]) -> None:
    """An AdmissionReview v1 in, an AdmissionReview v1 out, decided, charged and recorded as the webhook would.

    Exits 1 when it is denied. Set dryRun in the review to try without a charge.
    """
    data = read_bytes(file)
    answer = _with_door(context, lambda door: door.service.review(data))
    session(context).result(answer)
    raise typer.Exit(0 if answer["response"]["allowed"] else 1)


@app.command()
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="HTTPS: POST /validate, /healthz, /readyz")] = 8443,
    metrics_port: Annotated[int, typer.Option(help="GET /metrics")] = 9091,
    name: Annotated[list[str] | None, typer.Option(help="A DNS name for the self-signed certificate (the Service's)")] = None,
) -> None:
    """The webhook, until it is told to stop."""
    here = session(context)

    async def work(door: AdmissionDoor) -> None:
        from admission.webhook import Metrics, Webhook

        tls = door.tls(name or ())
        here.say(f"https://{host}:{port}/validate (CA for caBundle: {door.tls_folder / 'ca.crt'})")
        metrics = Metrics()
        webhook = Listener(Webhook(door.service, metrics), host, port, tls, limit=CONCURRENCY)
        await listen([webhook, Listener(metrics, host, metrics_port)], stop=stop_on_signals())

    _with_door(context, work)
