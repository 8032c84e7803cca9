"""Running ASGI applications on their ports until a stop is asked for: the one way in which every door is served."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from core.errors import ConfigError, Unavailable
from core.settings import Settings, Tls


@dataclass(frozen=True, slots=True)
class Listener:
    """One application on one port. Beyond `limit` open requests the answer is 503."""

    app: Any
    host: str
    port: int
    tls: Tls | None = None
    limit: int | None = None
    grace_seconds: int = 10
    """How long a request may go on after the stop was asked for."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the command that started us decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


async def serve(
    listeners: Sequence[Listener], *, stop: asyncio.Event, alongside: Sequence[Coroutine[Any, Any, None]] = ()
) -> None:
    """Serves until `stop` is set; `alongside` runs meanwhile and is cancelled then.

    ConfigError for a certificate that cannot be used; Unavailable for a port that is taken, or when something ends by itself.
    """
    servers = [_Server(_config(listener)) for listener in listeners]
    work = [asyncio.create_task(item) for item in alongside]
    running = [asyncio.create_task(_run(server)) for server in servers]
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([*running, *work, waiting], return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.should_exit = True
    for task in (waiting, *work):
        task.cancel()
    await asyncio.gather(*running)
    for task in work:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    if not stop.is_set():
        raise Unavailable("the server stopped by itself")


def _config(listener: Listener) -> uvicorn.Config:
    config = uvicorn.Config(
        listener.app,
        host=listener.host,
        port=listener.port,
        ssl_certfile=listener.tls.cert if listener.tls else None,
        ssl_keyfile=listener.tls.key if listener.tls else None,
        limit_concurrency=listener.limit,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=listener.grace_seconds,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError("the certificate and key cannot be used", where=listener.tls.cert if listener.tls else "") from error
    return config


async def _run(server: _Server) -> None:
    try:
        await server.serve()
    except SystemExit as error:  # how uvicorn says that it could not bind
        raise Unavailable("the port cannot be opened", where=f"{server.config.host}:{server.config.port}") from error


def guard_plain(settings: Settings, host: str) -> None:
    """ConfigError where `profile: production` would serve plain HTTP off loopback."""
    if settings.tls is None and settings.profile == "production" and not is_loopback(host):
        raise ConfigError("profile: production serves no plain HTTP off loopback; configure tls", where="tls")


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ending() -> list[signal.Signals]:
    """The signals that ask a program to end: SIGTERM, and SIGHUP unless whoever started us had it ignored, as nohup does."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, *hangup]


def stop_on_signals() -> asyncio.Event:
    """An event that SIGINT, SIGTERM and, where it is not ignored (nohup), SIGHUP set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, *ending()):
        loop.add_signal_handler(number, stop.set)
    return stop
