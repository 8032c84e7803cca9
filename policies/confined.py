"""The embedded engine for doors: the interpreter in a process of its own, so that a rule can be stopped.

regorus holds the interpreter lock for as long as it evaluates and has no deadline; inside a door, a rule that does not end would
silence the door and everything it was about to record. So the interpreter (`policies.interpreter`) is a child that this engine
supervises: one that does not answer within the deadline, or that died of its memory cap, is ended and started anew, and the call
is a denial that says so, which the living door records. Calls are evaluated one after the other; one that waited for its turn
longer than the deadline is denied like one that took so long.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from core.decision import Domain
from core.errors import ConfigError
from policies import embedded
from policies.evaluate import EngineFailure
from policies.interpreter import LENGTH

MAX_MEMORY = 256 * 1024 * 1024
"""What the child may hold: Python, the rules, the input and everything an evaluation makes."""
START_SECONDS = 30.0
ALARM_SECONDS = 1.0
"""So much after the deadline the kernel ends an evaluation whose door is gone."""
NO_MEMORY = "the evaluation needs more memory than it may have"


class Confined:
    """`Evaluator` over modules (path → text). ConfigError when they do not load together."""

    name = "embedded"

    def __init__(self, modules: Mapping[str, str], *, deadline_ms: int = 1_000, max_memory: int = MAX_MEMORY) -> None:
        self._deadline_ms = deadline_ms
        self._child = _Child(modules, deadline_ms, max_memory)
        self._child.start()
        self._owner = os.getpid()
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="policy-engine")
        self._stop = weakref.finalize(self, _end, self._turns, self._child)

    def evaluate(self, domain: Domain, document: bytes) -> Any:
        return self._submit(domain, document).result()

    async def evaluate_async(self, domain: Domain, document: bytes) -> Any:
        return await asyncio.wrap_future(self._submit(domain, document))

    def _submit(self, domain: Domain, document: bytes) -> Future[Any]:
        if not self._stop.alive:
            raise EngineFailure("engine/unavailable", problem="the engine has been closed")
        if os.getpid() != self._owner:
            raise EngineFailure("engine/unavailable", problem="the engine belongs to the process that made it")
        return self._turns.submit(_turn, self._child, f"data.portcullis.{domain}.decision", document, time.monotonic())

    def close(self) -> None:
        self._stop()


def _end(turns: ThreadPoolExecutor, child: _Child) -> None:
    turns.shutdown(wait=False, cancel_futures=True)
    child.stop()


def _turn(child: _Child, rule: str, document: bytes, asked: float) -> Any:
    """One evaluation, in the only thread that talks to the child."""
    if time.monotonic() - asked > child.deadline_ms / 1000:
        raise EngineFailure("engine/timeout", deadline_ms=child.deadline_ms)
    answer = child.ask(rule, document)
    return embedded.read(*((answer[1:].decode(), "") if answer[:1] == b"+" else (None, answer[1:].decode())))


class _Child:
    """The process and its pipes; started again when it is needed and not there."""

    def __init__(self, modules: Mapping[str, str], deadline_ms: int, max_memory: int) -> None:
        self.deadline_ms = deadline_ms
        self._rules = json.dumps(dict(modules)).encode()
        seconds = deadline_ms / 1000 + ALARM_SECONDS
        self._command = [sys.executable, "-P", "-m", "policies.interpreter", str(seconds), str(max_memory)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """ConfigError when the rules do not load together, EngineFailure when there can be no process."""
        environment = {
            "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
            "MIMALLOC_ARENA_RESERVE": "16MiB",  # regorus's allocator reserves 1 GiB otherwise, which the cap would count
        }
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0, env=environment
            )
        except OSError as error:
            raise EngineFailure("engine/unavailable", problem=f"no interpreter can be started: {error.strerror}") from error
        problem = self._exchange([self._rules], START_SECONDS).decode()
        if problem:
            self.stop()
            raise ConfigError(f"these rules do not load together: {problem}", where="policies")

    def ask(self, rule: str, document: bytes) -> bytes:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self.start()
        return self._exchange([rule.encode(), document], self.deadline_ms / 1000)

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()

    def _exchange(self, frames: list[bytes], seconds: float) -> bytes:
        """The answer to `frames`. EngineFailure, and no process any more, when none comes within `seconds`."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EngineFailure("engine/unavailable", problem="the interpreter is not running")
        until = time.monotonic() + seconds
        try:
            pending = memoryview(b"".join(LENGTH.pack(len(frame)) + frame for frame in frames))
            os.set_blocking(process.stdin.fileno(), False)
            while pending:
                _wait(until, writing=process.stdin.fileno())
                pending = pending[os.write(process.stdin.fileno(), pending[:65536]) :]
            size = LENGTH.unpack(_read(process.stdout.fileno(), LENGTH.size, until))[0]
            return _read(process.stdout.fileno(), size, until)
        except TimeoutError:
            self.stop()
            raise EngineFailure("engine/timeout", deadline_ms=self.deadline_ms) from None
        except (EOFError, OSError):
            self.stop()
            raise _died(process.returncode) from None


def _read(source: int, size: int, until: float) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        _wait(until, reading=source)
        part = os.read(source, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _wait(until: float, *, reading: int | None = None, writing: int | None = None) -> None:
    """Until the pipe is ready; TimeoutError at `until`."""
    poll = select.poll()
    if reading is not None:
        poll.register(reading, select.POLLIN)
    if writing is not None:
        poll.register(writing, select.POLLOUT)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise TimeoutError


def _died(status: int) -> EngineFailure:
    if status == -signal.SIGABRT:  # how Rust ends when an allocation fails
        return EngineFailure("engine/error", problem=NO_MEMORY)
    return EngineFailure("engine/unavailable", problem=f"the interpreter ended with status {status}")
