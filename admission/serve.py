"""Running the webhook: uvicorn with TLS on its port, metrics on theirs, until `stop` is set."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from admission.webhook import Door, Metrics, Webhook
from core.errors import ConfigError, Unavailable

CONCURRENCY = 512
"""Beyond this many open requests uvicorn answers 503, which the API server takes as a failure and denies by failurePolicy."""


@dataclass(frozen=True, slots=True)
class Tls:
    cert: Path
    key: Path


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the command that started us decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


async def serve(door: Door, *, host: str, port: int, tls: Tls, stop: asyncio.Event, metrics_port: int | None = None) -> None:
    """Serves until `stop` is set. ConfigError for a certificate that cannot be used, Unavailable for a port that is taken."""
    metrics = Metrics()
    webhook = uvicorn.Config(
        Webhook(door, metrics),
        host=host,
        port=port,
        ssl_certfile=str(tls.cert),
        ssl_keyfile=str(tls.key),
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=CONCURRENCY,
        timeout_graceful_shutdown=10,
    )
    try:
        webhook.load()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError("the certificate and key cannot be used", where=str(tls.cert)) from error
    servers = [_Server(webhook)]
    if metrics_port is not None:
        plain = uvicorn.Config(metrics, host=host, port=metrics_port, lifespan="off", access_log=False, log_config=None)
        servers.append(_Server(plain))
    await _until(servers, stop)


async def _until(servers: list[_Server], stop: asyncio.Event) -> None:
    """Ends when `stop` is set or any server ends by itself, which is an error."""
    running = [asyncio.create_task(_run(server)) for server in servers]
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([*running, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*running)
    if not stop.is_set():
        raise Unavailable("the webhook stopped by itself")


async def _run(server: _Server) -> None:
    try:
        await server.serve()
    except SystemExit as error:  # how uvicorn says that it could not bind
        raise Unavailable("the port cannot be opened", where=f"{server.config.host}:{server.config.port}") from error
