"""The gateway's side of its redactor process: a bounded queue in memory, one document at a time, a budget for each.

Whatever happens to the process, every submitted document comes back exactly once: redacted, or withheld with the reason. Nothing
here imports Presidio or spaCy (129 MB); only the child does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redaction import frames

log = logging.getLogger("portcullis.redaction")

Reason = Literal["died", "slow", "full", "failed", "too_large", "closing"]
"""Why content is withheld: the redactor died (or never started), was slow past its budget, had too much waiting, failed on
the document; the document is too large; the gateway is closing."""

Done = Callable[[Any, Reason | None], None]

MAX_WAITING = 1_000
MAX_WAITING_BYTES = 32 * 1024 * 1024
MAX_DOCUMENT = 1024 * 1024
BUDGET_SECONDS = 2.0
START_SECONDS = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    data: bytes
    id: int
    done: Done


class _Lost(Exception):
    """The process can no longer be relied on; `reason` goes to the document in hand."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def command(policy: str) -> Sequence[str]:
    """The redactor with a log policy, run by this Python."""
    return [sys.executable, "-P", "-m", "redaction.worker", policy]


class Channel:
    """`start` it in a running loop; `submit` never blocks and never raises; `close` ends the process."""

    def __init__(self, command: Sequence[str], *, budget_seconds: float = BUDGET_SECONDS) -> None:
        self._command = command
        self._budget = budget_seconds
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._next = 0
        self._down = False
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def submit(self, document: Any, done: Done) -> None:
        """Calls `done(redacted, None)` or `done(None, reason)`, once, now or later."""
        if self._closing or self._down:
            done(None, "closing" if self._closing else "died")
            return
        self._next += 1
        try:
            data = frames.encode({"id": self._next, "document": document})
        except (ValueError, TypeError, RecursionError):
            done(None, "too_large")
            return
        if len(data) > MAX_DOCUMENT:
            done(None, "too_large")
        elif len(self._queue) >= MAX_WAITING or self._bytes + len(data) > MAX_WAITING_BYTES:
            done(None, "full")
        else:
            self._queue.append(_Waiting(data, self._next, done))
            self._bytes += len(data)
            self._idle.clear()
            self._arrived.set()

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Lets what waits be redacted for `seconds`; the rest is withheld. Ends the process."""
        if not self._down:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._give_up("closing")

    # --- the process -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Keeps a process alive. While it cannot be had, what comes is withheld at once."""
        pause = FIRST_PAUSE
        while True:
            try:
                process = await self._spawn()
                self._down, pause = False, FIRST_PAUSE
                await self._serve(process)
            except _Lost as lost:
                log.warning("the redactor is gone (%s); it is started again", lost.reason)
            except OSError as error:
                log.warning("the redactor cannot be started: %s", error.strerror)
                self._down = True
            finally:
                await self._end()
            if self._down:
                self._give_up("died")
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    async def _spawn(self) -> asyncio.subprocess.Process:
        """A process that said that it is ready. _Lost, and down, when it does not."""
        pipe = asyncio.subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, start_new_session=True
        )
        try:
            first = await asyncio.wait_for(_read(process), START_SECONDS)
        except (TimeoutError, asyncio.IncompleteReadError, ValueError):
            self._down = True
            raise _Lost("died") from None
        if first != {"ready": True}:
            self._down = True
            raise _Lost("failed")
        return process

    async def _serve(self, process: asyncio.subprocess.Process) -> None:
        while True:
            while not self._queue:
                self._idle.set()
                self._arrived.clear()
                await self._arrived.wait()
            item = self._queue.popleft()
            self._bytes -= len(item.data)
            outcome: tuple[Any, Reason | None] = (None, "closing")
            try:
                outcome = await self._ask(process, item)
            except _Lost as lost:
                outcome = (None, lost.reason)
                raise
            finally:
                item.done(*outcome)

    async def _ask(self, process: asyncio.subprocess.Process, item: _Waiting) -> tuple[Any, Reason | None]:
        """One document there and back, within the budget."""
        try:
            async with asyncio.timeout(self._budget):
                if process.stdin is None:
                    raise _Lost("died")
                process.stdin.write(item.data)
                await process.stdin.drain()
                answer = await _read(process)
        except TimeoutError:
            raise _Lost("slow") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise _Lost("died") from None
        except ValueError:
            raise _Lost("failed") from None
        if not isinstance(answer, dict) or answer.get("id") != item.id:
            raise _Lost("failed")
        if "document" not in answer:
            return None, "failed"
        return answer["document"], None

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def _give_up(self, reason: Reason) -> None:
        while self._queue:
            self._queue.popleft().done(None, reason)
        self._bytes = 0
        self._idle.set()


async def _read(process: asyncio.subprocess.Process) -> Any:
    """The next message. IncompleteReadError when the process ended, ValueError when it is none."""
    stream = process.stdout
    if stream is None:
        raise asyncio.IncompleteReadError(b"", frames.LENGTH)
    size = frames.length_of(await stream.readexactly(frames.LENGTH))
    return json.loads(await stream.readexactly(size))
