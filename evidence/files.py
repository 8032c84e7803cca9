"""Files that survive a killed process and a lost power supply: written aside, synced, renamed."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import EvidenceUnavailable

PRIVATE = 0o600
FOLDER = 0o700


@contextmanager
def trouble(what: str, path: Path) -> Iterator[None]:
    """Turns an operating system's refusal into EvidenceUnavailable that names the folder or file."""
    try:
        yield
    except OSError as error:
        raise EvidenceUnavailable(f"{what}: {error.strerror or type(error).__name__}", where=str(path)) from error


def make_folder(path: Path) -> None:
    with trouble("cannot make the folder", path):
        path.mkdir(parents=True, exist_ok=True, mode=FOLDER)


def sync_folder(path: Path) -> None:
    """Makes renames and new names in `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Every byte of `data`, or OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_aside(path: Path, data: bytes, *, sync: bool = True) -> Path:
    """`data` in a new temporary file next to `path`, synced; the caller renames it."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        write_all(fd, data)
        if sync:
            os.fsync(fd)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return aside


def replace(path: Path, data: bytes, *, sync: bool = True) -> None:
    """`path` holds either what it held before or all of `data`, whatever happens. EvidenceUnavailable when it cannot be written."""
    with trouble("cannot be written", path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER)
        write_aside(path, data, sync=sync).replace(path)
        if sync:
            sync_folder(path.parent)


def read_secret(path: Path) -> bytes | None:
    """The 32 bytes in a key file (64 hex digits and a newline), or None when there is no such file."""
    try:
        text = path.read_text("ascii").strip()
        key = bytes.fromhex(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EvidenceUnavailable(f"the key cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError:
        key = b""
    if len(key) != 32:
        raise EvidenceUnavailable("not a key file (64 hex digits); restore it from a backup", where=str(path))
    return key


def secret(path: Path) -> bytes:
    """The 32-byte key in `path`, made on first use. When several processes make it at once, all get the same one."""
    key = read_secret(path)
    if key is not None:
        return key
    with trouble("the key cannot be written", path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER)
        aside = write_aside(path, secrets.token_hex(32).encode() + b"\n")
        try:
            # link, unlike rename, fails when the name is taken: the first one stays.
            os.link(aside, path)
        except FileExistsError:
            key = None
        finally:
            aside.unlink()
        sync_folder(path.parent)
    key = read_secret(path)
    if key is None:
        raise EvidenceUnavailable("the key was removed while it was made", where=str(path))
    return key


def try_lock(fd: int) -> bool:
    """An exclusive flock(2) on `fd`, held until it is closed; False when somebody else holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
