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

from redaction import cost, frames

log = logging.getLogger("portcullis.redaction")

Reason = Literal["starting", "died", "slow", "full", "failed", "too_large", "closing"]
"""Why content is withheld: too much waits for a redactor that is still starting; the redactor died (or never started), was slow
past its budget, had too much waiting, failed on the document; the document is too large for its budget; the gateway is closing."""

Done = Callable[[Any, Reason | None], None]

MAX_WAITING = 1_000
MAX_WAITING_BYTES = 32 * 1024 * 1024
BUDGET_SECONDS = 2.0
MAX_SECONDS = 0.6
MAX_DOCUMENT = 128 * 1024
"""What `cost` may say of a document, and its bytes, so that it fits the budget with the slowest policy. Measured at the limit, in CPU
seconds: 105 kB of prose 0.19, 128 KiB of letters 0.15, 7 kB of addresses 0.49, the same in a message's parts 1.02, which is the dearest."""
START_SECONDS = 60.0
LOSSES = 3
"""After so many processes in a row that were lost before they gave one answer, none is started without a pause."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
CLOSE_SECONDS = 5.0
EXIT_SECONDS = 1.0


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
        self._losses = 0
        self._ready = False
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
        except frames.FrameTooLarge:
            done(None, "too_large")
            return
        except (ValueError, TypeError, RecursionError):
            done(None, "failed")
            return
        if len(data) > MAX_DOCUMENT or cost.seconds(data) > MAX_SECONDS:
            done(None, "too_large")
        elif len(self._queue) >= MAX_WAITING or self._bytes + len(data) > MAX_WAITING_BYTES:
            done(None, "full" if self._ready else "starting")
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
        while True:
            reason: Reason = "closing"
            try:
                await self._serve(await self._spawn())
            except _Lost as lost:
                reason = lost.reason
                log.warning("the redactor is gone (%s); it is started again", reason)
            except OSError as error:
                reason, self._losses = "died", self._losses + LOSSES
                log.warning("the redactor cannot be started: %s", error.strerror)
            except Exception as error:
                # Whatever it is, supervision goes on. Its text may quote a document, so only its type is said.
                reason, self._losses = "failed", self._losses + 1
                log.error("the redactor's channel failed: %s", type(error).__name__)  # noqa: TRY400
            finally:
                self._ready = False
                await self._end(kill=reason != "died")
            if self._losses >= LOSSES:
                self._down = True
                self._give_up("died")
                await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._losses - LOSSES, 10)))

    async def _spawn(self) -> asyncio.subprocess.Process:
        """A process that said that it is ready. _Lost, and down, when it does not."""
        pipe = asyncio.subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, start_new_session=True
        )
        try:
            first = await asyncio.wait_for(_read(process), START_SECONDS)
        except TimeoutError:
            first = None
        except (asyncio.IncompleteReadError, ConnectionError):
            self._losses += LOSSES
            raise _Lost("died") from None
        except (ValueError, RecursionError):
            first = None
        if first != {"ready": True}:
            self._losses += LOSSES
            raise _Lost("failed")
        self._ready, self._down = True, False
        return process

    async def _serve(self, process: asyncio.subprocess.Process) -> None:
        ended = asyncio.ensure_future(process.wait())
        ended.add_done_callback(lambda _: self._arrived.set())
        try:
            while True:
                item = await self._take(ended)
                outcome: tuple[Any, Reason | None] = (None, "closing")
                try:
                    outcome = await self._ask(process, item)
                    self._losses = 0
                except _Lost as lost:
                    outcome = (None, lost.reason)
                    raise
                finally:
                    item.done(*outcome)
        except _Lost as lost:
            # Slow is the document's doing, and the process was well: whoever sends such documents must not withhold the others'.
            self._losses += lost.reason != "slow"
            raise
        finally:
            ended.cancel()

    async def _take(self, ended: asyncio.Future[int]) -> _Waiting:
        """The next document. _Lost when the process ends meanwhile: what waits is left for its successor."""
        while not ended.done():
            if self._queue:
                item = self._queue.popleft()
                self._bytes -= len(item.data)
                return item
            self._idle.set()
            self._arrived.clear()
            await self._arrived.wait()
        raise _Lost("died")

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
        except (ValueError, RecursionError):
            raise _Lost("failed") from None
        if not isinstance(answer, dict) or answer.get("id") != item.id:
            raise _Lost("failed")
        if "document" not in answer:
            return None, "failed"
        return answer["document"], None

    async def _end(self, *, kill: bool) -> None:
        """`kill=False`: it is about to be gone by itself, and gets a moment to be."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if not kill:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), EXIT_SECONDS)
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
