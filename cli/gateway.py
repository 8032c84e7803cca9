"""`portcullis gateway serve`."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from cli.admission import stop_on_signals
from cli.session import session

app = typer.Typer(help="The model-access proxy.", no_args_is_help=True)


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

    async def whole() -> None:
        from gateway.compose import build
        from gateway.serve import serve as listen
        from lineage.registry import Registry

        door = await build(here.settings, os.environ, models=Registry)
        try:
            here.say(f"{'https' if here.settings.tls else 'http'}://{host}:{port}/v1")
            await listen(door, host=host, port=port, metrics_port=metrics_port, stop=stop_on_signals())
        finally:
            await door.close()

    asyncio.run(whole())
