"""A folder of weights, sealed file by file: sealing, opening, inspecting, checking.

What is written appears under its final name only when all of it is whole; what fails half-way, or is stopped, leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from core.canonical import canonical, sha256
from core.errors import BadInput, Conflict, NotFound, SealBroken, Unavailable
from core.jsonread import loads_object
from weights import tensors
from weights.files import Reader, appearing, read_small, reading, walk, write, writing
from weights.floe import DEFAULT, KEY_BYTES, Opener, Parameters, Writer, encrypt_file
from weights.keys import WrappedKey
from weights.manifest import (
    BESIDE,
    FORMAT,
    KEYS,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    SUFFIX,
    Manifest,
    SealedFile,
    check_paths,
    context,
    has_tensors,
    read_manifest,
)

T = TypeVar("T")
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
    paths = sorted(walk(source))
    if not paths:
        raise BadInput("holds no file to seal", where=str(source))
    check_paths(paths)
    key, name = os.urandom(KEY_BYTES), os.urandom(16).hex()
    with appearing(target) as folder:

        def work(advance: Progress) -> tuple[SealedFile, ...]:
            one = _Sealing(source, folder, key, name, parameters, advance)
            return tuple(one.file(path) for path in paths)

        manifest = Manifest(name, parameters, await _aside(work, progress))
        wrapped = await keys.wrap(key, manifest.digest)
        write(folder / MANIFEST, manifest.encode())
        write(folder / KEYS, canonical({"v": 1, "keys": [wrapped.as_json()]}))
    return Sealed(target, manifest, manifest.digest, (wrapped,), signed=False)


async def open_sealed(sealed: Sealed, target: Path, key: bytes, *, progress: Progress = lambda _: None) -> None:
    """Writes the plain files into the new folder `target` (0700). SealBroken when anything is not as the manifest says.

    Every file is opened once: its digest is taken over the very bytes that are decrypted, so that somebody who holds the key and
    exchanges a file after it was checked gains nothing.
    """
    check_listing(sealed)
    with appearing(target) as folder:

        def work(advance: Progress) -> None:
            for file in sealed.manifest.files:
                _open_file(sealed, file, folder, key, advance)

        await _aside(work, progress)


def is_sealed(folder: Path) -> bool:
    """Whether the folder says so, by a manifest of ours of any version; `inspect` and `check` find out whether it is true."""
    try:
        document = loads_object(read_small(folder / MANIFEST, MAX_MANIFEST_BYTES))
    except (BadInput, NotFound):  # many a plain model brings a manifest.json of its own
        return False
    claimed = document.get("format")
    return isinstance(claimed, str) and claimed.startswith(FORMAT.rpartition("/")[0] + "/")


def inspect(folder: Path, *, expected: str | None = None) -> Sealed:
    """What a sealed folder says of itself; needs no key. NotFound when it is none, BadInput when it cannot be read, SealBroken when
    its manifest's digest is not the `expected` one."""
    try:
        data = read_small(folder / MANIFEST, MAX_MANIFEST_BYTES)
        wrapped = read_small(folder / KEYS, 64 * 1024)
    except NotFound as error:
        raise NotFound(f"is no sealed folder: {error.where} is not there", where=str(folder)) from error
    digest = sha256(data)
    if expected is not None and digest != expected:
        raise SealBroken(f"the manifest is {digest}, not {expected}", where=str(folder))
    return Sealed(folder, read_manifest(data), digest, _wrapped(wrapped), (folder / SIGNATURE).is_file())


def check_listing(sealed: Sealed) -> None:
    """The folder's files are those of the manifest, none more, none less. SealBroken otherwise."""
    wanted = {file.sealed_path for file in sealed.manifest.files}
    found = {path for path in walk(sealed.folder) if path not in BESIDE}
    if found != wanted:
        missing, extra = sorted(wanted - found), sorted(found - wanted)
        raise SealBroken(
            f"missing: {', '.join(missing[:5]) or 'nothing'}; not in the manifest: {', '.join(extra[:5]) or 'nothing'}",
            where=str(sealed.folder),
        )


def check(sealed: Sealed, *, progress: Progress = lambda _: None) -> None:
    """Every sealed byte against the manifest, without a key. SealBroken for a file that is missing, extra, cut or changed."""
    check_listing(sealed)
    for file in sealed.manifest.files:
        with reading(sealed.folder, file.sealed_path) as source:
            if source.size != file.sealed_size or _digest(source, progress) != file.sealed_digest:
                raise SealBroken("is not the file that was sealed", where=file.sealed_path)


def total(files: Sequence[SealedFile]) -> int:
    """Plain bytes altogether."""
    return sum(file.size for file in files)


# --- one file ------------------------------------------------------------------------------------------------------------


class _Hashed:
    """A sink that also hashes."""

    def __init__(self, sink: Writer) -> None:
        self._sink = sink
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self.hash.update(data)
        self.size += len(data)
        self._sink.write(data)


class _Beginning:
    """A source that also hashes its first `size` bytes as they pass."""

    def __init__(self, source: Reader, size: int) -> None:
        self._source = source
        self._left = size
        self._hash = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._hash.update(data[: self._left])
        self._left -= min(self._left, len(data))
        return data

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class _Sealing:
    """What sealing every file of one folder shares."""

    source: Path
    folder: Path
    key: bytes
    seal: str
    parameters: Parameters
    progress: Progress

    def file(self, path: str) -> SealedFile:
        """Seals one file. The header that the manifest speaks of is the one that was sealed: its bytes are hashed as they pass."""
        with reading(self.source, path) as source:
            header = _header(source, path) if has_tensors(path) else None
            source.seek(0)
            beginning = _Beginning(source, header.size if header else 0)
            with writing(self.folder / (path + SUFFIX)) as sink:
                hashed = _Hashed(sink)
                plain = encrypt_file(
                    beginning, hashed, self.key, context(self.seal, path), self.parameters, progress=self.progress
                )
            source.check_unchanged()
        digest = "sha256:" + hashed.hash.hexdigest()
        if header is None:
            return SealedFile(path, plain, hashed.size, digest)
        if beginning.digest != header.digest:
            raise Conflict("its header changed while it was sealed", where=path)
        return SealedFile(path, plain, hashed.size, digest, header.tensors, header.digest)


def _open_file(sealed: Sealed, file: SealedFile, folder: Path, key: bytes, progress: Progress) -> None:
    target = folder / file.path
    found = hashlib.sha256()
    with reading(sealed.folder, file.sealed_path) as source, writing(target) as sink:
        if source.size != file.sealed_size:
            raise SealBroken("is not the file that was sealed", where=file.sealed_path)
        opener = Opener(source, key, sealed.manifest.aad(file), sealed.manifest.parameters)
        if opener.size != file.size:
            raise SealBroken("holds another number of bytes than the manifest says", where=file.path)
        for piece in opener.segments(found.update):
            sink.write(piece)
            progress(len(piece))
    if "sha256:" + found.hexdigest() != file.sealed_digest:
        raise SealBroken("is not the file that was sealed", where=file.sealed_path)
    if file.header_digest is not None:
        _check_tensors(folder, file)


def _check_tensors(folder: Path, file: SealedFile) -> None:
    """What people approved by the manifest is what is in the file. SealBroken otherwise."""
    with reading(folder, file.path) as source:
        try:
            header = _header(source, file.path)
        except BadInput as error:
            raise SealBroken(f"its header is broken: {error.message}", where=error.where) from error
    if (header.tensors, header.digest) != (file.tensors, file.header_digest):
        raise SealBroken("has another header than the manifest says", where=file.path)


def _header(source: Reader, path: str) -> tensors.Header:
    try:
        return tensors.read_header(source, source.size)
    except BadInput as error:
        raise BadInput(error.message, where=f"{path}: {error.where}" if error.where else path) from error


def _wrapped(data: bytes) -> tuple[WrappedKey, ...]:
    document = loads_object(data, max_depth=8)
    entries: Any = document.get("keys")
    if document.keys() != {"v", "keys"} or document["v"] != 1 or not isinstance(entries, list):
        raise BadInput("is not a list of wrapped keys of version 1", where=KEYS)
    if not 0 < len(entries) <= MAX_KEYS:
        raise BadInput(f"holds 1 to {MAX_KEYS} wrapped keys, not {len(entries)}", where=KEYS)
    keys = tuple(WrappedKey.of(entry) for entry in entries)
    if len({(key.provider, key.kek) for key in keys}) != len(keys):
        raise BadInput("names the same key-encryption key twice", where=KEYS)
    return keys


def _digest(source: Reader, progress: Progress) -> str:
    found = hashlib.sha256()
    while data := source.read(CHUNK):
        found.update(data)
        progress(len(data))
    return "sha256:" + found.hexdigest()


async def _aside(work: Callable[[Progress], T], progress: Progress) -> T:
    """`work` in a thread. When we are cancelled it is told to stop, and waited for: nobody writes on behind our back."""
    stopped = threading.Event()

    def advance(count: int) -> None:
        if stopped.is_set():
            raise Unavailable("was stopped")
        progress(count)

    running = asyncio.ensure_future(asyncio.to_thread(work, advance))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.gather(running, return_exceptions=True)
        raise
