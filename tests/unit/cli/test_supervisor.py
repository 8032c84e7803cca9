"""Children that die, loop, never come up or outlive their parent: real processes, small programs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cli.supervisor
from cli.supervisor import Service, Supervisor
from core.errors import ConfigError, Unavailable
from tests.conftest import ROOT

FOREVER = "import signal; signal.pause()"


def service(program: str, name: str = "a", ready: str | None = None) -> Service:
    return Service(name, [sys.executable, "-c", program], ready)


class Told:
    """Events as they come, and a way to wait for one."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.lines: list[tuple[str, str]] = []
        self.changed = asyncio.Event()

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.changed.set()

    def line(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    def names(self) -> list[str]:
        return [event["event"] for event in self.events]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.supervisor, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(cli.supervisor, "GRACE_SECONDS", 0.5)


async def running(told: Told, *services: Service) -> tuple[asyncio.Task[None], asyncio.Event, list[str]]:
    stop, ups = asyncio.Event(), []
    task = asyncio.create_task(
        Supervisor(services, tell=told, line=told.line).run(stop, lambda: ups.append("up") or told.changed.set())
    )
    return task, stop, ups


async def test_all_start_and_all_stop() -> None:
    told = Told()
    task, stop, ups = await running(told, service(FOREVER), service(FOREVER, "b"))
    await told.until(lambda: ups == ["up"])
    pids = [event["pid"] for event in told.events if event["event"] == "started"]
    stop.set()
    await task
    assert told.names()[-1] == "stopped"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.usefixtures("quick")
async def test_one_that_dies_is_started_again() -> None:
    told = Told()
    task, stop, _ = await running(told, service(FOREVER))
    await told.until(lambda: "ready" in told.names())
    os.kill(told.events[0]["pid"], signal.SIGKILL)
    await told.until(lambda: told.names().count("ready") == 2)
    assert {"event": "exited", "service": "a", "status": -9} in told.events
    stop.set()
    await task


@pytest.mark.usefixtures("quick")
async def test_one_that_dies_again_and_again_ends_everything() -> None:
    told = Told()
    task, _, _ = await running(told, service("import sys; sys.exit('the disk is gone')"), service(FOREVER, "b"))
    with pytest.raises(Unavailable, match=r"5 times within a minute.*the disk is gone"):
        await task
    pauses = [event["in_seconds"] for event in told.events if event["event"] == "restarting"]
    assert pauses == [0.01, 0.02, 0.04, 0.08]
    assert told.names()[-1] == "stopped"


async def test_wrong_configuration_is_not_tried_again() -> None:
    told = Told()
    program = "import sys; print('portcullis.yaml: tenant: unknown key', file=sys.stderr); sys.exit(2)"
    task, _, ups = await running(told, service(program, ready="http://127.0.0.1:9/"))
    with pytest.raises(ConfigError, match="unknown key"):
        await task
    assert told.names().count("started") == 1
    assert ups == []
    assert told.lines == [("a", "portcullis.yaml: tenant: unknown key")]


@pytest.mark.usefixtures("quick")
async def test_one_that_does_not_listen_to_the_end_is_killed() -> None:
    told = Told()
    program = "import signal, sys; signal.signal(15, signal.SIG_IGN); print('deaf', file=sys.stderr, flush=True); signal.pause(); signal.pause()"
    task, stop, _ = await running(told, service(program))
    async with asyncio.timeout(20):
        while not told.lines:
            await asyncio.sleep(0.01)
    stop.set()
    await task
    with pytest.raises(ProcessLookupError):
        os.kill(told.events[0]["pid"], 0)


@pytest.mark.usefixtures("quick")
async def test_one_that_never_answers_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.supervisor, "READY_SECONDS", 0.05)
    told = Told()
    task, _, ups = await running(told, service(FOREVER, ready="http://127.0.0.1:9/"))
    with pytest.raises(Unavailable):
        await task
    assert "not_ready" in told.names()
    assert ups == []


LATE = """
import signal, sys, time
def end(*_):
    print("ends", file=sys.stderr, flush=True)
    time.sleep({seconds})
    print("ended", file=sys.stderr, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("runs", file=sys.stderr, flush=True)
while True:
    signal.pause()
"""


async def test_what_takes_in_the_others_records_ends_after_them_and_last_words_are_passed_on() -> None:
    told = Told()
    sequencer = replace(service(LATE.format(seconds=0), "sequencer"), ends_last=True)
    task, stop, _ = await running(
        told, sequencer, service(LATE.format(seconds=0.2), "a"), service(LATE.format(seconds=0.1), "b")
    )
    async with asyncio.timeout(20):
        while len(told.lines) < 3:
            await asyncio.sleep(0.01)
    told.lines.clear()
    stop.set()
    await task
    assert sorted(told.lines[:2]) == [("a", "ends"), ("b", "ends")], "the doors stop together"
    assert told.lines[2:] == [("b", "ended"), ("a", "ended"), ("sequencer", "ends"), ("sequencer", "ended")]


@pytest.mark.usefixtures("quick")
async def test_one_that_left_a_process_with_its_stderr_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.supervisor, "LAST_WORDS_SECONDS", 0.01)
    told = Told()
    program = (
        "import subprocess, sys; "
        f"child = subprocess.Popen([sys.executable, '-c', {FOREVER!r}], start_new_session=True); "
        "print(child.pid, file=sys.stderr, flush=True); sys.exit(3)"
    )
    task, _, _ = await running(told, service(program))
    with pytest.raises(Unavailable, match="5 times"):
        await task
    assert told.names().count("started") == 5
    for _, pid in told.lines:
        os.kill(int(pid), signal.SIGKILL)


ANSWERING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""


@pytest.mark.usefixtures("quick")
async def test_one_that_hangs_is_started_anew(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setattr(cli.supervisor, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(cli.supervisor, "SILENT_LOOKS", 2)
    monkeypatch.setattr(cli.supervisor, "ANSWER_SECONDS", 0.2)
    address = f"http://127.0.0.1:{free_port}/"
    told = Told()
    task, stop, _ = await running(told, replace(service(ANSWERING.format(port=free_port), ready=address), alive=address))
    await told.until(lambda: "ready" in told.names())
    os.kill(told.events[0]["pid"], signal.SIGSTOP)
    await told.until(lambda: told.names().count("ready") == 2)
    assert told.names() == ["started", "ready", "silent", "exited", "restarting", "started", "ready"]
    stop.set()
    await task


@pytest.mark.usefixtures("quick")
async def test_readiness_is_a_200_and_nothing_else(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    """Whatever else answers on the port, 503 or no HTTP at all, is not a service that can be used."""
    monkeypatch.setattr(cli.supervisor, "READY_SECONDS", 0.3)
    for answer in (b"HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n", b"SSH-2.0-x\r\n", b"\xff\xfe\x00"):
        server = await asyncio.start_server(partial(_say, answer), "127.0.0.1", free_port)
        told = Told()
        task, stop, ups = await running(told, service(FOREVER, ready=f"http://127.0.0.1:{free_port}/"))
        await told.until(lambda told=told: "not_ready" in told.names())
        assert ups == []
        stop.set()
        await task
        server.close()
        await server.wait_closed()


async def _say(answer: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer)
    await writer.drain()
    writer.close()


async def test_a_program_that_is_not_there_is_said() -> None:
    told = Told()
    task, _, _ = await running(told, service(FOREVER, "b"), Service("a", ["/no/such/program"]))
    with pytest.raises(Unavailable, match="a: cannot be started: No such file"):
        await task
    assert told.names()[-1] == "stopped"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    child_program = (
        "import os, sys; from cli.parent import follow; follow(os.environ); "
        f"print(os.getpid(), file=sys.stderr, flush=True); {FOREVER}"
    )
    program = f"""
import asyncio, sys
from cli.supervisor import Service, Supervisor
async def main():
    services = [Service("a", [sys.executable, "-c", {child_program!r}])]
    line = lambda name, line: print(line, flush=True)
    await Supervisor(services, tell=lambda event: None, line=line).run(asyncio.Event(), lambda: None)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while _alive(child):
        assert time.monotonic() < deadline, "the child outlived its supervisor"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is dead."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
