"""The inference log: what happened, never what was said.

One JSON line per call, of the fields below and nothing else, so message content cannot reach a disk. Content, redacted, comes with
the redactor process; until then it is withheld.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from core.errors import ConfigError

log = logging.getLogger("portcullis.gateway")
KEPT = ("id", "time", "tenant", "caller", "model", "route", "status", "stream", "ended", "usage")


class MetadataLog:
    """Appends to `path` (0600); ConfigError when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"the inference log cannot be opened: {error.strerror}", where=str(path)) from error

    def offer(self, record: dict[str, Any]) -> bool:
        """Writes the line in one `write`; False when it could not be written whole (the evidence stands on its own)."""
        line = json.dumps({name: record[name] for name in KEPT} | {"content": "withheld"}).encode() + b"\n"
        try:
            written = os.write(self._file, line)
        except OSError as error:
            log.warning("the inference log cannot be written: %s", error.strerror)
            return False
        return written == len(line)

    def close(self) -> None:
        os.close(self._file)
