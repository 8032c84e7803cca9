"""What a sealed folder holds, as one canonical document whose digest is registered and approved. docs/formats/sealed-weights.md."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from core.canonical import canonical, sha256
from core.errors import BadInput
from core.jsonread import loads_object
from core.names import check_digest
from weights.floe import Parameters

FORMAT = "portcullis.dev/sealed-weights/v1"
MANIFEST, KEYS, SIGNATURE = "manifest.json", "keys.json", "model.sig"
BESIDE = (MANIFEST, KEYS, SIGNATURE)
SUFFIX = ".floe"
MAX_FILES = 10_000
MAX_MANIFEST_BYTES = 8 * 1024 * 1024
MAX_PATH = 512
_SEAL = re.compile(r"[0-9a-f]{32}\Z")
_AEAD = {"aead": "AES-256-GCM", "kdf": "HKDF-EXPAND-SHA-384"}


@dataclass(frozen=True, slots=True)
class SealedFile:
    """One file: its plain path and size, and the size and digest of its sealed bytes. `tensors` for safetensors."""

    path: str
    size: int
    sealed_size: int
    sealed_digest: str
    tensors: int | None = None
    header_digest: str | None = None

    @property
    def sealed_path(self) -> str:
        return self.path + SUFFIX

    def as_json(self) -> dict[str, Any]:
        told = {"tensors": self.tensors, "header_digest": self.header_digest} if self.tensors is not None else {}
        return {
            "path": self.path, "size": self.size, "sealed_size": self.sealed_size, "sealed_digest": self.sealed_digest, **told
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manifest:
    seal: str
    parameters: Parameters
    files: tuple[SealedFile, ...]

    def encode(self) -> bytes:
        """Canonical JSON: the same content is always the same digest."""
        return canonical(
            {
                "format": FORMAT,
                "seal": self.seal,
                "floe": {**_AEAD, "segment_bytes": self.parameters.segment_bytes},
                "files": [file.as_json() for file in self.files],
            }
        )

    @property
    def digest(self) -> str:
        return sha256(self.encode())

    def aad(self, file: SealedFile) -> bytes:
        """What a file's ciphertext is bound to, so that it opens under no other name and in no other folder."""
        return context(self.seal, file.path)


def has_tensors(path: str) -> bool:
    """Whether a file must be safetensors, and so says how many tensors it has."""
    return path.endswith(".safetensors")


def context(seal: str, path: str) -> bytes:
    return f"{FORMAT}\x00{seal}\x00{path}".encode()


def read_manifest(data: bytes) -> Manifest:
    """BadInput unless `data` is exactly one manifest in its canonical form, every path harmless."""
    document = loads_object(data, max_bytes=MAX_MANIFEST_BYTES, max_depth=8)
    if canonical(document) != data:
        raise BadInput("is not in canonical form", where=MANIFEST)
    if document.keys() != {"format", "seal", "floe", "files"} or document["format"] != FORMAT:
        raise BadInput(f"is not a {FORMAT}", where=MANIFEST)
    floe = document["floe"]
    if not isinstance(floe, dict) or {**floe, "segment_bytes": 0} != {**_AEAD, "segment_bytes": 0}:
        raise BadInput("names other algorithms than this version has", where=f"{MANIFEST}: floe")
    segment = floe.get("segment_bytes")
    if (
        not isinstance(segment, int)
        or not _natural(segment)
        or not isinstance(document["seal"], str)
        or not _SEAL.match(document["seal"])
    ):
        raise BadInput("has no usable seal or segment length", where=MANIFEST)
    entries = document["files"]
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_FILES:
        raise BadInput(f"lists 1 to {MAX_FILES} files", where=f"{MANIFEST}: files")
    files = tuple(_file(entry) for entry in entries)
    check_paths([file.path for file in files])
    return Manifest(document["seal"], Parameters(segment), files)


def check_paths(paths: Sequence[str]) -> None:
    """BadInput for a path that means something else on another machine, and for two that one machine takes for the same."""
    if list(paths) != sorted(set(paths)):
        raise BadInput("paths are sorted and each stands once", where=f"{MANIFEST}: files")
    folded: dict[str, str] = {}
    for path in paths:
        _check_path(path)
        for part in (path, *map(str, PurePosixPath(path).parents)):
            if folded.setdefault(unicodedata.normalize("NFC", part).casefold(), part) != part:
                raise BadInput("two paths differ only in case or composition", where=path[:120])
    files = set(paths)
    for path in paths:
        if any(str(parent) in files for parent in PurePosixPath(path).parents):
            raise BadInput("a path is a file and a folder at once", where=path[:120])


def _check_path(path: str) -> None:
    parts = path.split("/")
    wrong = (
        not 0 < len(path.encode("utf-8", "surrogatepass")) <= MAX_PATH
        or any(part in {"", ".", ".."} or part != part.strip() or part.endswith(".") for part in parts)
        or any(char in '\\:*?"<>|' or unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in path)
    )
    if wrong:
        raise BadInput("is not a plain relative path", where=repr(path[:120]))


def _file(entry: Any) -> SealedFile:
    plain = {"path", "size", "sealed_size", "sealed_digest"}
    if not isinstance(entry, dict) or entry.keys() not in (plain, plain | {"tensors", "header_digest"}):
        raise BadInput(f"has exactly {', '.join(sorted(plain))}, and tensors with header_digest", where=f"{MANIFEST}: files")
    numbers = [entry["size"], entry["sealed_size"], entry.get("tensors", 0)]
    if not isinstance(entry["path"], str) or not all(_natural(number) for number in numbers):
        raise BadInput("path is a text, sizes are whole numbers", where=f"{MANIFEST}: files")
    if has_tensors(entry["path"]) != ("header_digest" in entry):
        raise BadInput("tensors and header_digest stand for a .safetensors file, and only there", where=entry["path"][:120])
    if "header_digest" in entry:
        check_digest(entry["header_digest"], "header digest")
    return SealedFile(
        entry["path"],
        entry["size"],
        entry["sealed_size"],
        check_digest(entry["sealed_digest"], "sealed digest"),
        entry.get("tensors"),
        entry.get("header_digest"),
    )


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
