"""The inference log: one JSON line per call, what happened in the clear, what was said through the redactor or not at all.

This is the one writer of the file. What the redactor did not give back in time is logged without it, with the reason.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
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


class Redacting(Protocol):
    """`redaction.channel.Channel`."""

    def submit(self, document: Any, done: Done) -> None: ...

    async def close(self) -> None: ...


class InferenceLog:
    """Appends to `path` (0600); ConfigError when it cannot be opened."""

    def __init__(self, path: Path, policy: LogPolicy, redactor: Redacting, metrics: Metrics) -> None:
        self._policy = policy
        self._redactor = redactor
        self._metrics = metrics
        self._torn = False
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
        """Takes the record of one call: the names of KEPT, `request`, `response`, and `bytes`, the size of both. Never blocks,
        never raises."""
        happened = {name: record[name] for name in KEPT}

        def done(redacted: Any, reason: str | None) -> None:
            if reason is None and not (isinstance(redacted, Mapping) and redacted.keys() == {"request", "response"}):
                reason = "failed"  # it must not write over what happened
            content = "withheld" if reason is not None or not self.keeps_content else "redacted"
            self._write(happened | {"content": content} | ({"withheld_because": reason} if reason else redacted))
            if reason is not None:
                self._metrics.withheld.labels(reason).inc()

        if self.keeps_content and record["bytes"] > MAX_KEPT_BYTES:
            done(None, "too_large")
            return
        said = {name: loggable(record[name], self._policy.content) for name in ("request", "response")}
        self._redactor.submit(said, done)

    def _write(self, line: Mapping[str, Any]) -> None:
        """One `write` per line. What cannot be written is counted; the call's evidence does not depend on it."""
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
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
        await self._redactor.close()
        os.close(self._file)
