"""The log on disk, in the layout of C2SP tlog-tiles: any static file server can serve this folder.

    checkpoint                      the signed tree head
    tile/<L>/<N>[.p/<W>]            hashes: tile N of level L, W of 256 while it is not full
    tile/entries/<N>[.p/<W>]        the records of a level-0 tile, each behind its length (uint16, big-endian)

Reading needs no lock: a checkpoint names a size, and everything below that size never changes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from core.errors import EvidenceUnavailable, InvalidProof
from evidence import merkle
from evidence.files import replace, trouble
from evidence.merkle import Nodes, leaf_hash, node_hash, root_hash
from evidence.notes import Checkpoint, VerifierKey, open_checkpoint

HEIGHT = 8
WIDTH = 1 << HEIGHT
HASH = 32
MAX_ENTRY = 0xFFFF
_RESOURCE = re.compile(
    r"(checkpoint|tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/(x[0-9]{3}/){0,6}[0-9]{3}"
    r"(\.p/([1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?)\Z"
)


def tile_path(level: int | str, number: int, width: int = WIDTH) -> str:
    """`tile/0/x001/x234/067` or, when partial, `tile/0/000.p/112`."""
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
    return f"tile/{level}/{path}" + (f".p/{width}" if width < WIDTH else "")


def pack_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle."""
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def unpack_entries(data: bytes, where: str) -> list[bytes]:
    """The entries of a bundle. InvalidProof when it ends inside one."""
    entries, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        if at + 2 + size > len(data):
            raise InvalidProof("the entry bundle ends inside an entry", where=where)
        entries.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return entries


class Log:
    """A log folder. `key` is whose checkpoints count."""

    def __init__(self, folder: Path, key: VerifierKey) -> None:
        self.folder = folder
        self.key = key

    # --- reading ---

    def resource(self, path: str) -> bytes | None:
        """The file that the tlog-tiles API serves at `path`; None when the log has none (or `path` is no such path)."""
        if not _RESOURCE.match(path):
            return None
        try:
            return (self.folder / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise EvidenceUnavailable(f"the log cannot be read: {error.strerror}", where=path) from error

    def checkpoint_note(self) -> bytes | None:
        return self.resource("checkpoint")

    def checkpoint(self) -> Checkpoint | None:
        """The signed tree head; None while there is no log. InvalidProof when the signature is not the log's."""
        note = self.checkpoint_note()
        return None if note is None else open_checkpoint(note, self.key)

    def _tile(self, level: int | str, number: int, width: int) -> bytes:
        """At least `width` items of a tile: the partial one, or the full one that has taken its place."""
        data = self.resource(tile_path(level, number, width))
        if data is None and width < WIDTH:
            data = self.resource(tile_path(level, number))
        if data is None:
            raise InvalidProof("the log lacks this tile; restore it from a backup", where=tile_path(level, number, width))
        return data

    def hashes(self, level: int, number: int, size: int) -> list[bytes]:
        """The hashes of one tile as a tree of `size` has them."""
        width = min(WIDTH, (size >> (HEIGHT * level)) - number * WIDTH)
        data = self._tile(level, number, width)
        if len(data) < width * HASH or len(data) % HASH:
            raise InvalidProof("the tile has a wrong length", where=tile_path(level, number, width))
        return [data[at : at + HASH] for at in range(0, width * HASH, HASH)]

    def nodes(self, size: int) -> Nodes:
        """Subtree hashes of the tree of `size`, read from tiles."""

        @lru_cache(maxsize=256)
        def tile(level: int, number: int) -> list[bytes]:
            return self.hashes(level, number, size)

        def nodes(level: int, index: int) -> bytes:
            tile_level, above = divmod(level, HEIGHT)
            number, at = divmod(index << above, WIDTH)
            row = tile(tile_level, number)[at : at + (1 << above)]
            while len(row) > 1:
                row = [node_hash(row[n], row[n + 1]) for n in range(0, len(row), 2)]
            return row[0]

        return nodes

    def root(self, size: int) -> bytes:
        return root_hash(size, self.nodes(size))

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        return merkle.inclusion_proof(index, size, self.nodes(size))

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        return merkle.consistency_proof(size1, size2, self.nodes(size2))

    def entries(self, start: int, end: int, size: int) -> Iterator[tuple[int, bytes]]:
        """(seq, leaf) from `start` up to before `end` of a tree of `size`; each leaf is checked against its level-0 hash."""
        for number in range(start // WIDTH, -(-end // WIDTH)):
            first = number * WIDTH
            width = min(WIDTH, size - first)
            where = tile_path("entries", number, width)
            found = unpack_entries(self._tile("entries", number, width), where)[:width]
            known = self.hashes(0, number, size)
            if len(found) < width or any(leaf_hash(entry) != value for entry, value in zip(found, known, strict=True)):
                raise InvalidProof("the records are not those that the tree commits to: the log was changed", where=where)
            for at, entry in enumerate(found):
                if start <= first + at < end:
                    yield first + at, entry

    def audit(self) -> Checkpoint:
        """Recomputes the whole tree from the records. InvalidProof where tiles, records and checkpoint do not agree."""
        checkpoint = self.checkpoint()
        if checkpoint is None:
            raise InvalidProof("there is no checkpoint", where=str(self.folder))
        row = [leaf_hash(entry) for _, entry in self.entries(0, checkpoint.size, checkpoint.size)]
        if root_hash(checkpoint.size, merkle.nodes_of(row)) != checkpoint.root:
            raise InvalidProof("the records do not give the root that the checkpoint signs", where="checkpoint")
        if self.root(checkpoint.size) != checkpoint.root:
            raise InvalidProof("the tiles do not give the root that the checkpoint signs", where="tile")
        return checkpoint

    # --- writing (the holder of the lease) ---

    def write_entries(self, size: int, entries: Sequence[bytes]) -> None:
        """Bundles for `entries`, which follow the first `size`."""
        first = size - size % WIDTH
        row = [entry for _, entry in self.entries(first, size, size)] if size % WIDTH else []
        row += entries
        for at in range(0, len(row), WIDTH):
            chunk = row[at : at + WIDTH]
            self._write(tile_path("entries", (first + at) // WIDTH, len(chunk)), pack_entries(chunk))

    def write_tiles(self, size: int, entries: Sequence[bytes]) -> None:
        """Hash tiles of every level that `entries` change."""
        level, count = 0, size
        new = [leaf_hash(entry) for entry in entries]
        while new:
            number, known = divmod(count, WIDTH)
            row = (self.hashes(level, number, size) if known else []) + new
            new = []
            for at in range(0, len(row), WIDTH):
                chunk = row[at : at + WIDTH]
                self._write(tile_path(level, number + at // WIDTH, len(chunk)), b"".join(chunk))
                if len(chunk) == WIDTH:
                    new.append(root_hash(WIDTH, merkle.nodes_of(chunk)))
            level, count = level + 1, number

    def remove_partials(self, before: int, after: int) -> None:
        """Partial tiles whose full one is there (tlog-tiles allows it), once the checkpoint of size `after` is published."""
        level = 0
        while after >> (HEIGHT * level):
            was, now = (size >> (HEIGHT * (level + 1)) for size in (before, after))
            for number in range(was, now):
                for kind in (level, "entries") if level == 0 else (level,):
                    folder = self.folder / (tile_path(kind, number) + ".p")
                    if folder.is_dir():
                        with trouble("an old partial tile cannot be removed", folder):
                            for file in folder.iterdir():
                                file.unlink()
                            folder.rmdir()
            level += 1

    def _write(self, path: str, data: bytes) -> None:
        replace(self.folder / path, data)
