"""Child processes, kept running: started together, watched, restarted with growing pauses, stopped in order.

Children lead sessions of their own, so that Ctrl-C in a terminal reaches only the supervisor, which ends them in order; they
are told whose children they are, so that they end when the supervisor dies, however it dies (cli.parent).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import ssl
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.parent import bound
from core.errors import ConfigError, Unavailable

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
DEATHS, WITHIN_SECONDS = 5, 60.0
"""So many deaths of one service within so many seconds, and all is stopped: it will not come right by itself."""
GRACE_SECONDS = 40.0
"""How long children may take to stop; a stream at the gateway may go on for 30 s."""
READY_SECONDS = 60.0
LOOK_SECONDS, SILENT_LOOKS = 5.0, 6
"""A service that does not answer for so many looks in a row hangs (an evaluation that never ends holds the interpreter)."""
ANSWER_SECONDS = 2.0
LAST_WORDS_SECONDS = 1.0
"""How long the end of a child's stderr is waited for; a process of its own may hold it open."""
USAGE = 2
"""The exit status of wrong input or configuration, which no restart mends."""

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Service:
    """`ready` is an address that answers 200 once the service can be used; None: as soon as it runs. `alive` is one that
    answers whatever the service depends on does; None: it is not asked. One that `ends_last` takes in what the others write."""

    name: str
    command: Sequence[str]
    ready: str | None = None
    alive: str | None = None
    ends_last: bool = False


@dataclass
class _Child:
    service: Service
    process: asyncio.subprocess.Process | None = None
    was_ready: bool = False
    deaths: list[float] = field(default_factory=list)
    last_line: str = ""

    @property
    def said(self) -> str:
        """Its last line, without the name that every line of ours begins with."""
        return self.last_line.removeprefix("portcullis: ")


class Supervisor:
    """Runs `services` until told to stop. `tell` gets events; `line` what children write to stderr, by service."""

    def __init__(self, services: Sequence[Service], *, tell: Tell, line: Callable[[str, str], None]) -> None:
        self._children = [_Child(service) for service in services]
        self._tell = tell
        self._line = line
        self._all_ready = asyncio.Event()
        self._readings: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event, up: Callable[[], None]) -> None:
        """Calls `up` once everything is ready. Raises ConfigError or Unavailable when a service cannot be kept running."""
        watching = [asyncio.create_task(self._keep(child)) for child in self._children]
        announcing = asyncio.create_task(self._announce(up))
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*watching, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*watching, announcing, stopping):
                task.cancel()
            await asyncio.gather(*watching, announcing, stopping, return_exceptions=True)
            await self._end()
        for task in done - {stopping}:
            task.result()

    async def _announce(self, up: Callable[[], None]) -> None:
        await self._all_ready.wait()
        up()

    async def _keep(self, child: _Child) -> None:
        """Starts the child again and again, until it cannot be helped."""
        name = child.service.name
        while True:
            status = await self._once(child)
            now = time.monotonic()
            child.deaths = [at for at in child.deaths if now - at < WITHIN_SECONDS] + [now]
            self._tell({"event": "exited", "service": name, "status": status})
            if status == USAGE and not child.was_ready:
                raise ConfigError(child.said or "cannot start with this configuration", where=name)
            if len(child.deaths) >= DEATHS:
                why = f"; it said: {child.said}" if child.said else ""
                raise Unavailable(f"ended {DEATHS} times within a minute, the last time with status {status}{why}", where=name)
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (len(child.deaths) - 1))
            self._tell({"event": "restarting", "service": name, "in_seconds": pause})
            await asyncio.sleep(pause)

    async def _once(self, child: _Child) -> int:
        """One life of the child; its exit status (negative: the signal that ended it)."""
        process, stderr = await _spawn(child.service)
        child.process = process
        self._tell({"event": "started", "service": child.service.name, "pid": process.pid})
        reading = asyncio.create_task(self._pass_on(child, stderr))
        self._readings.add(reading)
        reading.add_done_callback(self._readings.discard)
        watching = asyncio.create_task(self._watch(child, process))
        try:
            status = await process.wait()
            await asyncio.wait([reading], timeout=LAST_WORDS_SECONDS)
        finally:
            watching.cancel()
        return status

    async def _pass_on(self, child: _Child, pipe: int) -> None:
        """Line by line, until the last process that holds the other end closes it."""
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(pipe, "rb", buffering=0)
        )
        try:
            while True:
                try:
                    line = await stream.readline()
                except ValueError:  # longer than the reader's limit; the rest follows
                    continue
                if not line:
                    return
                child.last_line = line.decode("utf-8", "replace").rstrip()
                self._line(child.service.name, child.last_line)
        finally:
            transport.close()

    async def _watch(self, child: _Child, process: asyncio.subprocess.Process) -> None:
        """Waits until the service can be used, then looks after it. One that never answers, or no longer, is ended: it is
        started anew."""
        name, address = child.service.name, child.service.alive
        if not await self._until_ready(child):
            self._tell({"event": "not_ready", "service": name, "seconds": READY_SECONDS})
            _signal(process, signal.SIGKILL)
            return
        silent = 0
        while address is not None and silent < SILENT_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            silent = 0 if await asyncio.to_thread(_answers, address) else silent + 1
        if address is not None:
            self._tell({"event": "silent", "service": name, "looks": silent})
            _signal(process, signal.SIGKILL)

    async def _until_ready(self, child: _Child) -> bool:
        """Asks the service's address until it answers; False when it does not in time."""
        deadline = time.monotonic() + READY_SECONDS
        address = child.service.ready
        while address is not None and not await asyncio.to_thread(_answers, address):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        child.was_ready = True
        self._tell({"event": "ready", "service": child.service.name})
        if all(other.was_ready for other in self._children):
            self._all_ready.set()
        return True

    async def _end(self) -> None:
        """The doors, then what takes in their records; then what they still said is passed on."""
        for last in (False, True):
            await _end_all([child.process for child in self._children if child.process and child.service.ends_last is last])
        if self._readings:
            _, open_still = await asyncio.wait(self._readings, timeout=LAST_WORDS_SECONDS)
            for reading in open_still:
                reading.cancel()
            await asyncio.gather(*open_still, return_exceptions=True)
        self._tell({"event": "stopped"})


async def _spawn(service: Service) -> tuple[asyncio.subprocess.Process, int]:
    """The process, and the end of a pipe to read its stderr from. Unavailable when the machine does not give one."""
    # A pipe of our own: asyncio's would keep `wait` from ending for as long as a grandchild holds it open.
    try:
        ours, theirs = os.pipe()
    except OSError as error:
        raise Unavailable(f"cannot be started: {error.strerror}", where=service.name) from error
    try:
        process = await asyncio.create_subprocess_exec(
            *service.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=theirs,
            start_new_session=True,
            env=bound(os.environ),
        )
    except OSError as error:
        os.close(ours)
        raise Unavailable(f"cannot be started: {error.strerror}", where=service.name) from error
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return process, ours


async def _end_all(processes: Sequence[asyncio.subprocess.Process]) -> None:
    """TERM to all, then KILL to those that take too long."""
    living = [process for process in processes if process.returncode is None]
    for process in living:
        _signal(process, signal.SIGTERM)
    waiting = [asyncio.create_task(process.wait()) for process in living]
    if waiting:
        _, late = await asyncio.wait(waiting, timeout=GRACE_SECONDS)
        for process in living if late else ():
            _signal(process, signal.SIGKILL)
        await asyncio.gather(*waiting)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _answers(address: str) -> bool:
    """Whether the service itself answers 200. It is asked on this machine, so whose certificate it shows does not matter."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with direct.open(address, timeout=ANSWER_SECONDS) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):  # URLError is an OSError
        return False
