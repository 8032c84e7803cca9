"""Child processes, kept running: started together, watched, restarted with growing pauses, stopped together.

Children lead sessions of their own, so that Ctrl-C in a terminal reaches only the supervisor, which ends them in order; on
Linux they get SIGTERM when the supervisor dies, however it dies (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import ConfigError, Unavailable

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
DEATHS, WITHIN_SECONDS = 5, 60.0
"""So many deaths of one service within so many seconds, and all is stopped: it will not come right by itself."""
GRACE_SECONDS = 40.0
"""How long children may take to stop; a stream at the gateway may go on for 30 s."""
READY_SECONDS = 60.0
PR_SET_PDEATHSIG = 1
USAGE = 2
"""The exit status of wrong input or configuration, which no restart mends."""

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Service:
    """`ready` is an address that answers 200 once the service can be used; None: as soon as it runs."""

    name: str
    command: Sequence[str]
    ready: str | None = None


@dataclass
class _Child:
    service: Service
    process: asyncio.subprocess.Process | None = None
    was_ready: bool = False
    deaths: list[float] = field(default_factory=list)
    last_line: str = ""


class Supervisor:
    """Runs `services` until told to stop. `tell` gets events; `line` what children write to stderr, by service."""

    def __init__(self, services: Sequence[Service], *, tell: Tell, line: Callable[[str, str], None]) -> None:
        self._children = [_Child(service) for service in services]
        self._tell = tell
        self._line = line
        self._all_ready = asyncio.Event()

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
                raise ConfigError(child.last_line or "cannot start with this configuration", where=name)
            if len(child.deaths) >= DEATHS:
                why = f"; it said: {child.last_line}" if child.last_line else ""
                raise Unavailable(f"ended {DEATHS} times within a minute, the last time with status {status}{why}", where=name)
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (len(child.deaths) - 1))
            self._tell({"event": "restarting", "service": name, "in_seconds": pause})
            await asyncio.sleep(pause)

    async def _once(self, child: _Child) -> int:
        """One life of the child; its exit status (negative: the signal that ended it)."""
        child.process = await asyncio.create_subprocess_exec(
            *child.service.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )
        self._tell({"event": "started", "service": child.service.name, "pid": child.process.pid})
        reading = asyncio.create_task(self._pass_on(child))
        asking = asyncio.create_task(self._until_ready(child))
        try:
            status = await child.process.wait()
            await reading
        finally:
            asking.cancel()
            reading.cancel()
        return status

    async def _pass_on(self, child: _Child) -> None:
        stream = child.process.stderr if child.process else None
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the reader's limit; the rest follows
                continue
            if not line:
                return
            child.last_line = line.decode("utf-8", "replace").rstrip()
            self._line(child.service.name, child.last_line)

    async def _until_ready(self, child: _Child) -> None:
        """Asks the service's address until it answers. One that never does is ended, so that it is started anew."""
        deadline = time.monotonic() + READY_SECONDS
        address = child.service.ready
        while address is not None and not await asyncio.to_thread(_answers, address):
            if time.monotonic() > deadline and child.process is not None:
                self._tell({"event": "not_ready", "service": child.service.name, "seconds": READY_SECONDS})
                _signal(child.process, signal.SIGKILL)
                return
            await asyncio.sleep(0.05)
        child.was_ready = True
        self._tell({"event": "ready", "service": child.service.name})
        if all(other.was_ready for other in self._children):
            self._all_ready.set()

    async def _end(self) -> None:
        """TERM to all, then KILL to those that take too long."""
        living = [child.process for child in self._children if child.process is not None and child.process.returncode is None]
        for process in living:
            _signal(process, signal.SIGTERM)
        waiting = [asyncio.create_task(process.wait()) for process in living]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=GRACE_SECONDS)
            for process in living if late else ():
                _signal(process, signal.SIGKILL)
            await asyncio.gather(*waiting)
        self._tell({"event": "stopped"})


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _die_with(parent: int) -> Callable[[], None] | None:
    """Runs in the child before its program: SIGTERM when the parent ends, and no life at all when it ended already."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _answers(address: str) -> bool:
    """Whether the service itself answers 200. It is asked on this machine, so whose certificate it shows does not matter."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(address, timeout=2, context=context) as response:  # noqa: S310  (our own address)
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
