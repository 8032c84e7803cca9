"""The pepper: a secret beside the database, so that a stolen table of hashes is worth nothing without the keys folder."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from core.errors import ConfigError, Unavailable

SIZE = 32


def load_pepper(path: Path) -> bytes:
    """The 32 bytes in `path`, made on first use (mode 0600, never over another file).

    Raises ConfigError when the file is of another size or others may read it, Unavailable when it cannot be read or written.
    """
    try:
        if not path.exists():
            _create(path)
        status = path.stat()
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError("others may read the pepper of the API keys; run chmod 600 on it", where=str(path))
        pepper = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"the pepper of the API keys cannot be used: {error.strerror}", where=str(path)) from error
    if len(pepper) != SIZE:
        raise ConfigError(
            f"holds {len(pepper)} bytes, a pepper has {SIZE}; restore it from a backup (with another one no API key is valid)",
            where=str(path),
        )
    return pepper


def _create(path: Path) -> None:
    """Written whole under a name of its own, then linked: a process that starts at the same moment never reads half a pepper."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was quicker: its pepper is the one
    finally:
        draft.unlink()
