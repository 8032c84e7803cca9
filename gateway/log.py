"""The inference log: one JSON line per call, what happened in the clear, what was said through the redactor or not at all.

This is the one writer of the file. What the redactor did not give back in time is logged without it, with the reason.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.errors import ConfigError
from gateway.telemetry import Metrics
from redaction.channel import Done
from redaction.policy import LogPolicy
from redaction.record import loggable

log = logging.getLogger("portcullis.gateway")
KEPT = ("id", "time", "tenant", "caller", "model", "route", "status", "stream", "ended", "usage")
"""What happened: numbers, names that the operator gave, references. Nothing that a caller wrote."""


MAX_KEPT_BYTES = 1024 * 1024
"""Of a call that is said more, no content is logged: a part would end inside of what no recognizer then knows."""


MAX_UNWRITTEN = 10_000
"""So many lines wait for an earlier one; when more do (the redactor is still starting), what needs no redactor is written at once."""


class Redacting(Protocol):
    """`redaction.channel.Channel`."""

    def submit(self, document: Any, done: Done) -> None: ...

    async def close(self) -> None: ...


@dataclass(eq=False, slots=True)
class _Line:
    """One call's place in the log: what happened, and the whole line once it is known. `queued`: it waits for those before it."""

    happened: dict[str, Any]
    text: str | None = None
    queued: bool = True


class InferenceLog:
    """Appends to `path` (0600); ConfigError when it cannot be opened."""

    def __init__(self, path: Path, policy: LogPolicy, redactor: Redacting, metrics: Metrics) -> None:
        self._policy = policy
        self._redactor = redactor
        self._metrics = metrics
        self._torn = False
        self._unwritten: deque[_Line] = deque()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"the inference log cannot be opened: {error.strerror}", where=str(path)) from error

    @property
    def keeps_content(self) -> bool:
        """Whether answers are worth collecting: only a policy that redacts content looks at them."""
        return self._policy.content == "redact"

    def offer(self, record: Mapping[str, Any]) -> None:
        """Takes the record of one call: the names of KEPT, `served`, `request`, `response`, and `bytes`, the size of both. Never
        blocks, never raises. Lines stand in the order in which calls were offered, also where one needs no redactor."""
        line = _Line({name: record[name] for name in KEPT})
        line.queued = len(self._unwritten) < MAX_UNWRITTEN
        if line.queued:
            self._unwritten.append(line)

        def done(redacted: Any, reason: str | None) -> None:
            self._finish(line, redacted, reason)

        if self.keeps_content and record["bytes"] > MAX_KEPT_BYTES:
            done(None, "too_large")
            return
        content, served = self._policy.content, record["served"]
        try:
            said = {name: loggable(record[name], content, served=served) for name in ("request", "response")}
            self._redactor.submit(said, done)
        except Exception as error:
            # A line that is never finished would hold back every later one. The error's text may quote the call.
            log.error("a call could not be handed to the redactor: %s", type(error).__name__)  # noqa: TRY400
            done(None, "failed")

    def _finish(self, line: _Line, redacted: Any, reason: str | None) -> None:
        if line.text is not None:
            return
        if reason is None and not (isinstance(redacted, Mapping) and redacted.keys() == {"request", "response"}):
            reason = "failed"  # it must not write over what happened
        content = "withheld" if reason is not None or not self.keeps_content else "redacted"
        try:
            line.text = _json(line.happened | {"content": content} | ({"withheld_because": reason} if reason else redacted))
        except (ValueError, TypeError, RecursionError):
            reason = "failed"
            line.text = _json(line.happened | {"content": "withheld", "withheld_because": reason})
        if reason is not None:
            self._metrics.withheld.labels(reason).inc()
        if line.queued:
            while self._unwritten and (text := self._unwritten[0].text) is not None:
                self._unwritten.popleft()
                self._write(text)
        else:
            self._write(line.text)

    def _write(self, text: str) -> None:
        """One `write` per line. What cannot be written is counted; the call's evidence does not depend on it."""
        data = b"\n" * self._torn + text.encode("utf-8", "replace") + b"\n"
        written = 0
        try:
            written = os.write(self._file, data)
        except OSError as error:
            log.warning("the inference log cannot be written: %s", error.strerror)
        if written < len(data):
            self._metrics.unlogged.inc()
        # After a part of a line (the disk is full) the next one begins on a line of its own.
        self._torn = self._torn if written == 0 else written < len(data)

    async def close(self) -> None:
        """Writes every line that was offered; those that the redactor still has, without content."""
        await self._redactor.close()
        for line in list(self._unwritten):
            self._finish(line, None, "closing")
        os.close(self._file)


def _json(line: Mapping[str, Any]) -> str:
    """ValueError for a number that JSON does not have (RFC 8259, 6)."""
    return json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
