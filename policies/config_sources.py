"""Where configuration comes from, and putting it together: files that are read once per change, and sections that are checked once.

A change is small beside what stands: of a document with a hundred thousand namespaces only the sections that a change touched are
read, checked and digested again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import yamlread
from core.canonical import digest
from core.errors import BadInput, ConfigError
from policies import config_overlay as overlay
from policies.config import Document
from policies.config_overlay import Layer

DEFAULTS = Path(__file__).parent / "defaults"
Mark = tuple[str, int, int, int]
"""What changes when a file does: name, time, size and inode (an editor replaces, a mounted ConfigMap swaps links)."""


class Files:
    """The shipped defaults and the operator's files. What was read of a file is kept until its mark changes."""

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = (DEFAULTS, *places)
        self._read: dict[Mark, Layer] = {}

    def marks(self) -> tuple[Mark, ...]:
        """Of every file, lowest first. ConfigError when one cannot be looked at."""
        return tuple(mark for _, mark in self._found())

    def layers(self) -> list[Layer]:
        """Every file's document, lowest first. ConfigError names the file and the place that is wrong."""
        found = self._found()
        read = {mark: self._read.get(mark) or read_file(path, DEFAULTS in path.parents) for path, mark in found}
        self._read = read
        return list(read.values())

    def _found(self) -> list[tuple[Path, Mark]]:
        found = []
        for path in [path for place in self._places for path in _yaml_files(place)]:
            try:
                status = path.stat()
            except OSError as error:
                raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
            found.append((path, (str(path), status.st_mtime_ns, status.st_size, status.st_ino)))
        return found


@dataclass(frozen=True, slots=True)
class Built:
    """One effective configuration: keyed, typed, and the digest of each section."""

    merged: dict[str, Any]
    document: Document
    digests: dict[str, str] = field(repr=False)

    @property
    def revision(self) -> str:
        return digest(self.digests)

    @classmethod
    def of(cls, layers: Sequence[Layer], rules: Collection[str] | None, known: Built | None) -> Built:
        """The layers put together. Sections that are as in `known` are taken from it: the very objects, so that indexes over them
        hold too. Contradictions between sections are looked for in the whole document always. ConfigError as `overlay.validate`."""
        merged = overlay.overlay(layers)
        same = {
            section
            for section, value in merged.items()
            if known is not None and section in known.merged and _alike(known.merged[section], value)
        }
        document = overlay.validate(merged, layers, rules, checked=known.document if known else None, same=same)
        digests = {
            section: known.digests[section] if known is not None and section in same else overlay.section_digest(section, value)
            for section, value in merged.items()
        }
        return cls(merged, document, digests)


def _alike(a: Any, b: Any) -> bool:
    """Equal, and of the same types throughout (`==` takes 1 for True). Quick where both share their parts, as layers do."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_alike(value, b[key]) for key, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b)


def _yaml_files(place: Path) -> list[Path]:
    """The file itself, or every YAML file in a folder, sorted by path; hidden ones (a ConfigMap's `..data`) are left out."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise ConfigError("no such file or folder; take it out of `config:` or create it", where=str(place))
    found = [path for suffix in ("*.yaml", "*.yml") for path in place.rglob(suffix) if path.is_file()]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(place).parts))


def read_file(path: Path, shipped: bool) -> Layer:
    """One file's document. ConfigError with its name."""
    name = f"defaults/{path.name}" if shipped else str(path)
    try:
        value = yamlread.load(path.read_bytes(), where=name)
        return Layer(name, {} if value is None else overlay.keyed(overlay.plain(value)))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=name) from error
    except BadInput as error:
        where = error.where if error.where.startswith(name) else f"{name}: {error.where}".removesuffix(": ")
        raise ConfigError(error.message, where=where) from error
