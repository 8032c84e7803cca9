"""`portcullis gateway serve`."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from cli.serving import Listener, guard_plain, stop_on_signals
from cli.serving import serve as listen
from cli.session import session

app = typer.Typer(help="The model-access proxy.", no_args_is_help=True)
CONCURRENCY = 4096
"""Open calls of one process, streams among them; beyond it 503 at once instead of a queue that nobody sees."""
STREAM_SECONDS = 30
"""How long a stream may go on after the stop was asked for."""


@app.callback()
def _group() -> None:
    """Keeps `serve` a command of its own."""


@app.command()
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="OpenAI-compatible: POST /v1/chat/completions, GET /v1/models")] = 8080,
    metrics_port: Annotated[int, typer.Option(help="GET /metrics, /healthz, /readyz")] = 9090,
) -> None:
    """The proxy, until it is told to stop. Upstreams come from gateway.upstreams in portcullis.yaml."""
    here = session(context)
    guard_plain(here.settings, host)

    async def whole() -> None:
        from gateway.compose import build
        from lineage.registry import Registry

        door = await build(here.settings, os.environ, models=Registry)
        try:
            here.say(f"{'https' if here.settings.tls else 'http'}://{host}:{port}/v1")
            main = Listener(door.app, host, port, here.settings.tls, limit=CONCURRENCY, grace_seconds=STREAM_SECONDS)
            await listen(
                [main, Listener(door.telemetry, host, metrics_port)], stop=stop_on_signals(), alongside=[door.refusals.run()]
            )
        finally:
            await door.close()

    asyncio.run(whole())
