"""`portcullis api serve`."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from cli.serving import Listener, guard_plain, serve, stop_on_signals
from cli.session import session

app = typer.Typer(help="The management API.", no_args_is_help=True)
CONCURRENCY = 256
"""Open requests; one body may hold a megabyte, and people and pipelines ask here, not calls."""


@app.callback()
def _group() -> None:
    """Keeps `serve` a command of its own."""


@app.command("serve")
def serve_api(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="/api/v1, /bundles, /log, /docs, /healthz, /readyz")] = 8090,
) -> None:
    """Models, datasets, approvals, keys, configuration, decisions, reports and the log's tiles, until it is told to stop.

    Example: curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8090/api/v1/models
    """
    here = session(context)
    guard_plain(here.settings, host)

    async def whole() -> None:
        from admission.ledger import QuotaLedger
        from api.app import application
        from api.compose import build_served

        served = await build_served(here.settings, os.environ, accounts=QuotaLedger)
        tls = here.settings.tls
        try:
            here.say(f"{'https' if tls else 'http'}://{host}:{port}/docs")
            listener = Listener(application(served), host, port, tls, limit=CONCURRENCY)
            await serve([listener], stop=stop_on_signals(), alongside=[served.refusals.run(), served.waits.run()])
        finally:
            await served.close()

    asyncio.run(whole())
