"""The durable spool: where a process puts records before the sequencer takes them into the log.

Each process has its own file, held under flock(2) as long as it writes. A record is one line, written by one write(2), and the
line carries a digest of itself, so that a torn line can never pass for a record. docs/formats/log.md has the format.

Two rules keep an acknowledged record from being lost: a file is appended to only while nothing in it was ever cut after it
could have been read, and only the sequencer removes a file, once its writer has let go of the lock.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import EvidenceUnavailable
from evidence.files import PRIVATE, make_folder, replace, sync_folder, trouble, try_lock

Durability = Literal["batched", "strict"]
MAX_SEGMENT_BYTES = 16 * 1024 * 1024
"""A writer begins a new file beyond this size, so that the sequencer can remove the old one."""
SYNC_SECONDS = 0.05
"""`batched`: how long a written record may wait for its fsync."""

_HEAD = b'{"record":'
_MIDDLE = b',"sha256":"'
_TAIL = b'"}'
_FRAME = len(_MIDDLE) + 64 + len(_TAIL)


def frame(record: bytes) -> bytes:
    """A spool line for a record in canonical JSON."""
    return _HEAD + record + _MIDDLE + hashlib.sha256(record).hexdigest().encode() + _TAIL + b"\n"


def unframe(line: bytes) -> bytes | None:
    """The record in a line (without its newline), or None when the line is not whole."""
    if not line.startswith(_HEAD) or len(line) < len(_HEAD) + _FRAME:
        return None
    record, rest = line[len(_HEAD) : -_FRAME], line[-_FRAME:]
    return record if rest == _MIDDLE + hashlib.sha256(record).hexdigest().encode() + _TAIL else None


class _Segment:
    """One open spool file of this process."""

    def __init__(self, folder: Path) -> None:
        name = secrets.token_hex(16)
        self.path = folder / f"{name}.jsonl"
        born = folder / f"{name}.new"
        self.fd = os.open(born, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
        # Locked before it has the name that the sequencer looks for: an unlocked file is one whose writer has gone.
        if not try_lock(self.fd):
            raise OSError(errno.EAGAIN, "a new spool file is locked")
        born.rename(self.path)
        sync_folder(folder)
        self.size = 0
        self.synced = 0
        self.open = True

    def write(self, line: bytes) -> None:
        """The whole line, or OSError and nothing of it: what a full disk let through has no newline yet, and is cut off."""
        written = os.write(self.fd, line)
        if written != len(line):
            os.ftruncate(self.fd, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written

    def sync(self) -> None:
        upto = self.size
        os.fsync(self.fd)
        self.synced = upto

    def close(self) -> None:
        self.open = False
        os.close(self.fd)


class Spool:
    """The writing side, for any number of threads of one process. `close` when done.

    `_write_lock` guards what is appended and which file is current; `_sync_lock` guards fsync and close. Where both are
    needed, `_sync_lock` is taken first.
    """

    def __init__(self, folder: Path, *, durability: Durability = "batched") -> None:
        self.folder = folder
        self.durability = durability
        make_folder(folder)
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._segment: _Segment | None = None
        self._write_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._dirty = threading.Event()
        self._closing = threading.Event()
        self._flusher: threading.Thread | None = None

    def append(self, record: bytes) -> None:
        """Returns once the record is durable as far as `durability` promises; EvidenceUnavailable when it is not recorded.

        `strict`: after fsync (one for all threads that wait). `batched`: after write(2), which survives a killed process; the
        fsync follows within SYNC_SECONDS.
        """
        if self._pid != os.getpid():
            self._reset()  # after fork: the file and its lock are the parent's
        with trouble("the evidence spool cannot be written, so nothing was recorded", self.folder):
            segment, end = self._write(frame(record))
            if self.durability == "strict":
                self._wait_synced(segment, end)
            else:
                self._dirty.set()
            if segment.size > MAX_SEGMENT_BYTES:
                self._retire(segment)

    def _write(self, line: bytes) -> tuple[_Segment, int]:
        with self._write_lock:
            if self._closing.is_set():
                raise OSError(errno.EBADF, "it is closed")
            if self._segment is None:
                self._segment = _Segment(self.folder)
            segment = self._segment
            try:
                segment.write(line)
                failed: OSError | None = None
            except OSError as error:
                failed, self._segment = error, None
            end = segment.size
            if self.durability == "batched" and self._flusher is None:
                self._flusher = threading.Thread(target=self._flush, name="evidence-spool", daemon=True)
                self._flusher.start()
        if failed is not None:
            self._retire(segment)
            raise failed
        return segment, end

    def _wait_synced(self, segment: _Segment, end: int) -> None:
        """Group commit: whoever gets the lock first syncs for all that were written by then."""
        with self._sync_lock:
            if segment.synced >= end:
                return
            if not segment.open:
                raise OSError(errno.EIO, "the record could not be synced")
            try:
                segment.sync()
            except OSError:
                # Nobody was told that anything after `synced` is recorded, and this file is never appended to again.
                with self._write_lock:
                    self._segment = None if self._segment is segment else self._segment
                    os.ftruncate(segment.fd, segment.synced)
                    segment.close()
                raise

    def _retire(self, segment: _Segment) -> None:
        """Syncs and closes a file that takes no more records; its lock goes with it, so that the sequencer can remove it."""
        with self._sync_lock:
            with self._write_lock:
                self._segment = None if self._segment is segment else self._segment
            if segment.open:
                try:
                    segment.sync()
                finally:
                    segment.close()

    def _flush(self) -> None:
        while not self._closing.is_set():
            self._dirty.wait()
            self._closing.wait(SYNC_SECONDS)
            self._dirty.clear()
            self.sync()

    def sync(self) -> None:
        """fsync what was written. After a refusal the file is given up; the next append begins another, or says why it cannot."""
        with self._sync_lock:
            segment = self._segment
            if segment is None or segment.synced == segment.size:
                return
            try:
                segment.sync()
            except OSError:
                with self._write_lock:
                    self._segment = None if self._segment is segment else self._segment
                segment.close()

    def close(self) -> None:
        """Syncs and lets go of the file. An append after this is refused."""
        self._closing.set()
        self._dirty.set()
        if self._flusher is not None and self._pid == os.getpid():
            self._flusher.join()
        with self._write_lock:
            segment = self._segment
        if segment is not None and self._pid == os.getpid():
            with trouble("the evidence spool cannot be synced", self.folder):
                self._retire(segment)


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its record (None when the line is damaged), and where in the file it ends."""

    record: bytes | None
    end: int


class SpoolFile:
    """The reading side of one spool file; only the holder of the lease uses it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = path.with_suffix(".done")

    @property
    def done(self) -> int:
        """The offset up to which the log has the records."""
        try:
            return int(self._mark.read_text("ascii"))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise EvidenceUnavailable("the mark of a spool file cannot be read", where=str(self._mark)) from error

    def lines(self) -> Iterator[Line]:
        """What stands after `done`. A last line without its newline (its writer was killed, or still writes) does not count:
        it was never acknowledged. A whole line that is not what its digest says is damage, and comes out as such.
        """
        with trouble("a spool file cannot be read", self.path), self.path.open("rb") as file:
            end = self.done
            file.seek(end)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                yield Line(unframe(line[:-1]), end)

    def mark(self, end: int) -> None:
        """Notes that the log has everything up to `end`; durable when it returns."""
        replace(self._mark, str(end).encode())

    def remove_if_finished(self) -> bool:
        """Removes the file when its writer has gone and the log has all of it."""
        with trouble("a spool file cannot be removed", self.path):
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if not try_lock(fd) or any(True for _ in self.lines()):
                    return False
                self.path.unlink()
                # In this order: a file that came back without its mark would be integrated again.
                sync_folder(self.path.parent)
                self._mark.unlink(missing_ok=True)
            finally:
                os.close(fd)
        return True


def spool_files(folder: Path) -> list[SpoolFile]:
    """Every spool file, in a fixed order."""
    return [SpoolFile(path) for path in sorted(folder.glob("*.jsonl"))]
