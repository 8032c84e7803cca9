"""What every door is served by."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from admission.certificates import ensure
from cli.serving import Listener, guard_plain, serve
from core.errors import ConfigError, Unavailable
from core.settings import Settings, Tls


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_a_taken_port_and_a_bad_certificate_are_said(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with pytest.raises(Unavailable):
            await serve([Listener(hello, "127.0.0.1", sock.getsockname()[1])], stop=asyncio.Event())
    files = ensure(tmp_path, [], now_unix=1_800_000_000)
    swapped = Tls(cert=str(files.key), key=str(files.cert))
    with pytest.raises(ConfigError):
        await serve([Listener(hello, "127.0.0.1", 0, swapped)], stop=asyncio.Event())


async def test_serves_until_told_to_stop_and_cancels_what_runs_beside(free_port: int) -> None:
    stop, ended = asyncio.Event(), asyncio.Event()

    async def beside() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(serve([Listener(hello, "127.0.0.1", free_port)], stop=stop, alongside=[beside()]))
    async with httpx.AsyncClient() as client:
        for _ in range(500):
            try:
                answer = await client.get(f"http://127.0.0.1:{free_port}/")
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.01)
    assert answer.text == "ok"
    stop.set()
    await task
    assert ended.is_set()


async def test_what_runs_beside_and_fails_ends_the_server(free_port: int) -> None:
    async def beside() -> None:
        raise Unavailable("the log is gone")

    with pytest.raises(Unavailable, match="the log is gone"):
        await serve([Listener(hello, "127.0.0.1", free_port)], stop=asyncio.Event(), alongside=[beside()])


def test_production_serves_no_plain_http_off_loopback() -> None:
    strict = Settings().model_copy(update={"profile": "production"})
    for host in ("127.0.0.1", "::1", "localhost"):
        guard_plain(strict, host)
    for host in ("0.0.0.0", "10.0.0.1", "portcullis.example"):
        with pytest.raises(ConfigError):
            guard_plain(strict, host)
    guard_plain(strict.model_copy(update={"tls": Tls(cert="c", key="k")}), "0.0.0.0")
    guard_plain(Settings(), "0.0.0.0")
