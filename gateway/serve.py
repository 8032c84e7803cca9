"""Running the gateway: uvicorn on its port, metrics on theirs, until `stop` is set."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterator

import uvicorn

from core.errors import ConfigError, Unavailable
from gateway.compose import GatewayDoor

GRACE_SECONDS = 30
"""How long a stream may go on after the stop was asked for."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the command that started us decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


async def serve(door: GatewayDoor, *, host: str, port: int, metrics_port: int, stop: asyncio.Event) -> None:
    """Serves until `stop` is set. ConfigError for plain HTTP off loopback in production or a certificate that cannot be used,
    Unavailable for a port that is taken."""
    tls = door.settings.tls
    if tls is None and door.settings.profile == "production" and not _is_loopback(host):
        raise ConfigError("profile: production serves no plain HTTP off loopback; configure tls", where="tls")
    main = uvicorn.Config(
        door.app,
        host=host,
        port=port,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    try:
        main.load()
    except OSError as error:
        raise ConfigError("the certificate and key cannot be used", where="tls") from error
    side = uvicorn.Config(
        door.telemetry, host=host, port=metrics_port, lifespan="off", access_log=False, log_config=None, server_header=False
    )
    servers = [_Server(main), _Server(side)]
    recording = asyncio.create_task(door.refusals.run())
    running = [asyncio.create_task(_run(server)) for server in servers]
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([*running, waiting, recording], return_when=asyncio.FIRST_COMPLETED)
    for task in (waiting, recording):
        task.cancel()
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*running)
    if not stop.is_set():
        raise Unavailable("the gateway stopped by itself")


async def _run(server: _Server) -> None:
    try:
        await server.serve()
    except SystemExit as error:  # how uvicorn says that it could not bind
        raise Unavailable("the port cannot be opened", where=f"{server.config.host}:{server.config.port}") from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
