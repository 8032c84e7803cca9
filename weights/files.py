"""Files and folders, handled so that what was looked at is what is read, and what is written is whole or not there.

Reading: every part of a path is opened without following a link, below one opened folder. Writing: under a name nobody looks
for, on the disk, and only then named.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from core.errors import BadInput, Conflict, NotFound, Unavailable
from core.ids import uuid7

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

PARTIAL = ".partial-"
"""Between a folder's name and the UUIDv7 of the run that writes it."""
_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
BEGINNINGS = 8
_BY_HAND = "it may hold plain weights: delete it by hand"
log = logging.getLogger("portcullis.weights")


def walk(folder: Path) -> Iterator[str]:
    """Relative paths of the regular files below `folder`. BadInput for links and anything that is no file or folder."""
    if not folder.is_dir():
        raise NotFound("is no folder", where=str(folder))
    for base, folders, files in os.walk(folder, followlinks=False, onerror=_unreadable):
        for name in (*folders, *files):
            path = Path(base) / name
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise BadInput("is a link, a device or a pipe; only plain files are sealed", where=str(path))
        for name in files:
            yield (Path(base) / name).relative_to(folder).as_posix()


def _unreadable(error: OSError) -> None:
    raise Unavailable(f"cannot be read: {error.strerror}", where=str(error.filename)) from error


class Reader:
    """An opened regular file. Unavailable when the disk does not give it."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._stream = stream
        self._path = path
        self.opened = os.fstat(stream.fileno())
        self.size = self.opened.st_size

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise Unavailable(f"cannot be read: {error.strerror}", where=self._path) from error

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)

    def check_unchanged(self) -> None:
        """Conflict when somebody wrote to it since it was opened."""
        now, then = os.fstat(self._stream.fileno()), self.opened
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (then.st_size, then.st_mtime_ns, then.st_ctime_ns):
            raise Conflict("changed while it was read", where=self._path)


@contextmanager
def reading(folder: Path, path: str) -> Iterator[Reader]:
    """The file `path` below `folder`, opened once, no link followed on the way. NotFound, or BadInput when it is no plain file."""
    try:
        file = _descend(folder, path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound("is not there", where=path) from error
    except OSError as error:
        raise BadInput(f"cannot be opened as a plain file: {error.strerror}", where=path) from error
    with os.fdopen(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise BadInput("is no plain file", where=path)
        yield Reader(stream, path)


def _descend(folder: Path, path: str) -> int:
    *parents, name = PurePosixPath(path).parts
    here = os.open(folder, _FOLDER)
    try:
        for part in parents:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(name, _READ, dir_fd=here)
    finally:
        os.close(here)


@contextmanager
def writing(target: Path) -> Iterator[BinaryIO]:
    """A new file (0600), on the disk when the block ends. Unavailable when it cannot be written whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(target, _CREATE, 0o600)
        with os.fdopen(file, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(file)
    except OSError as error:
        raise Unavailable(f"cannot be written: {error.strerror}", where=target.name) from error


def write(target: Path, data: bytes) -> None:
    with writing(target) as stream:
        stream.write(data)


def read_small(path: Path, most: int) -> bytes:
    """The whole of a file. BadInput beyond `most` bytes."""
    with reading(path.parent, path.name) as source:
        if source.size > most:
            raise BadInput(f"has {source.size} bytes; at most {most} are read", where=path.name)
        return source.read(most)


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A folder (0700) that gets its name only when the block ends well; otherwise nothing of it is left.

    What an earlier run for the same target left, because it was killed, is removed first: it may hold plain weights. A folder
    that is being written is locked (flock(2)), so that it is told from one that was left.

    Conflict when `target` is there. Unavailable when it cannot be written, or when what was begun or left cannot be taken away.
    """
    if target.exists() or target.is_symlink():
        raise Conflict("is there already; choose another place", where=str(target))
    sweep(target)
    try:
        partial, lock = _begin(target)
    except OSError as error:
        raise Unavailable(f"cannot be made: {error.strerror}", where=str(target)) from error
    try:
        yield partial
        _name(partial, target)
    except BaseException:
        _remove(partial)
        raise
    finally:
        os.close(lock)


def _begin(target: Path) -> tuple[Path, int]:
    """A new folder beside `target`, and the descriptor that holds its lock. OSError when there is none to be had."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(BEGINNINGS):
        partial = target.parent / f".{target.name}{PARTIAL}{uuid7()}"
        partial.mkdir(mode=0o700)
        # Until it is locked another run may take it for left; then it is gone, and another one is made.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(partial, _FOLDER | os.O_NOFOLLOW)
            if _lock(lock) is not False and partial.exists():
                return partial, lock
            os.close(lock)
    raise OSError(errno.EBUSY, "other runs for the same place take away what is begun")


def _lock(folder: int) -> bool | None:
    """True when it is ours now, False when another process has it, None where the file system has no such locks."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # EBADF or ENOLCK on network file systems (flock(2), NOTES)
        return None
    return True


def sweep(target: Path) -> None:
    """Removes what killed runs left beside `target`, and says so in the log. Unavailable where that cannot be done, or where
    nobody can say whether it was left: a folder of somebody else's, a file system without locks."""
    begun = re.compile(re.escape(f".{target.name}{PARTIAL}") + _ID)
    for left in sorted(target.parent.glob(f"*{PARTIAL}*")):
        if begun.fullmatch(left.name):
            _sweep(left)


def _sweep(left: Path) -> None:
    try:
        folder = os.open(left, _FOLDER | os.O_NOFOLLOW)
    except FileNotFoundError:
        return  # whoever wrote it has just ended
    except OSError as error:
        raise Unavailable(f"cannot be looked into ({error.strerror}); {_BY_HAND}", where=str(left)) from error
    try:
        locked = _lock(folder)
        if locked is None or (locked and os.fstat(folder).st_uid != os.geteuid()):
            raise Unavailable(f"seems left by a run that was killed; when none is at work, {_BY_HAND}", where=str(left))
        if locked and left.exists():
            _remove(left)
            log.warning("%s, which a run that was killed had left, is removed", left)
    finally:
        os.close(folder)


def _name(partial: Path, target: Path) -> None:
    try:
        for base, _, _ in os.walk(partial):
            sync_folder(Path(base))
        partial.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        if target.exists():
            raise Conflict(f"appeared meanwhile: {error.strerror}", where=str(target)) from error
        raise Unavailable(f"cannot be written: {error.strerror}", where=str(target)) from error


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` survive a crash: a file's own fsync does not (fsync(2))."""
    handle = os.open(folder, _FOLDER)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(partial: Path) -> None:
    try:
        shutil.rmtree(partial)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable(f"what was begun could not be removed ({error.strerror}); {_BY_HAND}", where=str(partial)) from error
