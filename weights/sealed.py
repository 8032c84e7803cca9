"""A folder of weights, sealed file by file: sealing, opening, inspecting, checking.

What is written appears under its final name only when all of it is whole; what fails half-way leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from core.canonical import canonical, sha256
from core.errors import BadInput, Conflict, NotFound, SealBroken, Unavailable
from core.ids import uuid7
from core.jsonread import loads_object
from weights import tensors
from weights.floe import DEFAULT, KEY_BYTES, Opener, Parameters, encrypt_file
from weights.keys import WrappedKey
from weights.manifest import (
    BESIDE,
    KEYS,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    SUFFIX,
    Manifest,
    SealedFile,
    check_paths,
    context,
    read_manifest,
)

Progress = Callable[[int], None]
MAX_KEYS = 16
"""How many wrapped keys a folder may bring; more is an attempt to keep us busy."""
CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed folder as it lies there, nothing decrypted."""

    folder: Path
    manifest: Manifest
    digest: str
    keys: tuple[WrappedKey, ...]
    signed: bool


class Wrap(Protocol):
    async def wrap(self, key: bytes, manifest_digest: str) -> WrappedKey: ...


async def seal(
    source: Path, target: Path, keys: Wrap, *, parameters: Parameters = DEFAULT, progress: Progress = lambda _: None
) -> Sealed:
    """Seals every file below `source` into the new folder `target`, under a key of its own that only `keys` can unwrap.

    BadInput for links, devices, odd names and broken safetensors files; Conflict when `target` is there or a file changes
    meanwhile; NotFound without a key-encryption key; Unavailable when it cannot be written.
    """
    paths = sorted(_walk(source))
    if not paths:
        raise BadInput("holds no file to seal", where=str(source))
    check_paths(paths)
    key, name = os.urandom(KEY_BYTES), os.urandom(16).hex()
    with _appearing(target) as folder:
        work = _Work(source, folder, key, name, parameters, progress)
        files = await asyncio.to_thread(lambda: tuple(_seal_file(work, path) for path in paths))
        manifest = Manifest(name, parameters, files)
        wrapped = await keys.wrap(key, manifest.digest)
        _write(folder / MANIFEST, manifest.encode())
        _write(folder / KEYS, canonical({"v": 1, "keys": [wrapped.as_json()]}))
    return Sealed(target, manifest, manifest.digest, (wrapped,), signed=False)


def open_sealed(sealed: Sealed, target: Path, key: bytes, *, progress: Progress = lambda _: None) -> None:
    """Writes the plain files into the new folder `target` (0700). SealBroken when anything is not as the manifest says."""
    check(sealed)
    with _appearing(target) as folder:
        for file in sealed.manifest.files:
            _open_file(sealed, file, folder / file.path, key, progress)


def inspect(folder: Path) -> Sealed:
    """What a sealed folder says of itself; needs no key. NotFound when it is none, BadInput when it cannot be read."""
    data = _small(folder / MANIFEST, MAX_MANIFEST_BYTES)
    return Sealed(folder, read_manifest(data), sha256(data), _wrapped(folder), (folder / SIGNATURE).is_file())


def check(sealed: Sealed, *, progress: Progress = lambda _: None) -> None:
    """Every sealed byte against the manifest, without a key. SealBroken for a file that is missing, extra, cut or changed."""
    wanted = {file.sealed_path: file for file in sealed.manifest.files}
    found = {path for path in _walk(sealed.folder) if path not in BESIDE}
    if found != wanted.keys():
        missing, extra = sorted(wanted.keys() - found), sorted(found - wanted.keys())
        raise SealBroken(
            f"missing: {', '.join(missing[:5]) or 'nothing'}; not in the manifest: {', '.join(extra[:5]) or 'nothing'}",
            where=str(sealed.folder),
        )
    for path, file in wanted.items():
        with _regular(sealed.folder, path) as (stream, size):
            if size != file.sealed_size or _digest(stream, progress) != file.sealed_digest:
                raise SealBroken("is not the file that was sealed", where=path)


# --- one file ------------------------------------------------------------------------------------------------------------


class _Hashed:
    """A sink that also hashes."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self._sink.write(data)


@dataclass(frozen=True, slots=True)
class _Work:
    """What sealing every file of one folder shares."""

    source: Path
    folder: Path
    key: bytes
    seal: str
    parameters: Parameters
    progress: Progress


def _seal_file(work: _Work, path: str) -> SealedFile:
    target = work.folder / (path + SUFFIX)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _regular(work.source, path) as (stream, size):
        header = None
        if path.endswith(".safetensors"):
            try:
                header = tensors.read_header(stream, size)
            except BadInput as error:
                raise BadInput(error.message, where=f"{path}: {error.where}") from error
            stream.seek(0)
        with _new(target) as sink:
            hashed = _Hashed(sink)
            aad = context(work.seal, path)
            plain = encrypt_file(stream, hashed, work.key, aad, work.parameters, progress=work.progress)
        if plain != size or os.fstat(stream.fileno()).st_size != size:
            raise Conflict("changed while it was sealed", where=path)
    digest = "sha256:" + hashed.hash.hexdigest()
    if header is None:
        return SealedFile(path, plain, hashed.size, digest)
    return SealedFile(path, plain, hashed.size, digest, header.tensors, header.digest)


def _open_file(sealed: Sealed, file: SealedFile, target: Path, key: bytes, progress: Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _regular(sealed.folder, file.sealed_path) as (stream, _), _new(target) as sink:
        opener = Opener(stream, key, sealed.manifest.aad(file), sealed.manifest.parameters)
        if opener.size != file.size:
            raise SealBroken("holds another number of bytes than the manifest says", where=file.path)
        for piece in opener.segments():
            sink.write(piece)
            progress(len(piece))


# --- files and folders ---------------------------------------------------------------------------------------------------


def _walk(folder: Path) -> Iterator[str]:
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


@contextmanager
def _regular(folder: Path, path: str) -> Iterator[tuple[BinaryIO, int]]:
    """The file, opened once without following a link: what is checked is what is read."""
    try:
        file = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound("is not there", where=path) from error
    except OSError as error:
        raise BadInput(f"cannot be opened as a plain file: {error.strerror}", where=path) from error
    with os.fdopen(file, "rb") as stream:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise BadInput("is no plain file", where=path)
        yield stream, found.st_size


@contextmanager
def _new(target: Path) -> Iterator[BinaryIO]:
    """A new file (0600), on the disk when the block ends. Unavailable when it cannot be written whole."""
    try:
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(file)
    except OSError as error:
        raise Unavailable(f"cannot be written: {error.strerror}", where=target.name) from error


def _write(target: Path, data: bytes) -> None:
    with _new(target) as stream:
        stream.write(data)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder that gets its name only when the block ends well; otherwise nothing of it is left."""
    if target.exists() or target.is_symlink():
        raise Conflict("is there already; choose another place", where=str(target))
    partial = target.parent / f".{target.name}.partial-{uuid7()}"
    try:
        partial.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise Unavailable(f"cannot be made: {error.strerror}", where=str(target)) from error
    try:
        yield partial
        _name(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _name(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError as error:
        raise Conflict(f"appeared meanwhile or cannot be named: {error.strerror}", where=str(target)) from error


def _small(path: Path, most: int) -> bytes:
    try:
        with _regular(path.parent, path.name) as (stream, size):
            if size > most:
                raise BadInput(f"has {size} bytes; at most {most} are read", where=path.name)
            return stream.read(most)
    except NotFound as error:
        raise NotFound("this is no sealed folder", where=str(path)) from error


def _wrapped(folder: Path) -> tuple[WrappedKey, ...]:
    document = loads_object(_small(folder / KEYS, 64 * 1024), max_depth=8)
    entries: Any = document.get("keys")
    if document.keys() != {"v", "keys"} or document["v"] != 1 or not isinstance(entries, list):
        raise BadInput("is not a list of wrapped keys of version 1", where=KEYS)
    if not 0 < len(entries) <= MAX_KEYS:
        raise BadInput(f"holds 1 to {MAX_KEYS} wrapped keys, not {len(entries)}", where=KEYS)
    keys = tuple(WrappedKey.of(entry) for entry in entries)
    if len({(key.provider, key.kek) for key in keys}) != len(keys):
        raise BadInput("names the same key-encryption key twice", where=KEYS)
    return keys


def _digest(stream: BinaryIO, progress: Progress) -> str:
    found = hashlib.sha256()
    while data := stream.read(CHUNK):
        found.update(data)
        progress(len(data))
    return "sha256:" + found.hexdigest()


def total(files: Sequence[SealedFile]) -> int:
    """Plain bytes altogether."""
    return sum(file.size for file in files)
