"""The sequencer: takes spooled records into the log, in batches, one process at a time.

A batch, step by step; each step is durable before the next begins, and a crash after any of them is mended at the next start:

1. collect whole lines from the spools, leave out ids that the log has already, order them by id (time)
2. give each its `seq`; write entry bundles, then hash tiles
3. sign the new checkpoint as `checkpoint.next`
4. publish it: rename to `checkpoint`
5. only then mark the lines as done, and remove spool files whose writers have gone

Nothing acknowledged is lost: a line stays in its spool until a published checkpoint covers it. Nothing is there twice: whatever
step 5 had not marked is among the last batch, and is recognised by its id. The tree never forks: a checkpoint that was signed is
always published before anything else is signed, and tiles that do not give the root of the checkpoint stop the sequencer.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.clock import SystemClock
from core.errors import EvidenceUnavailable, InvalidProof
from core.jsonread import loads_object
from core.ports import Clock
from evidence.files import PRIVATE, make_folder, replace, sync_folder, trouble, try_lock, write_all
from evidence.keys import log_signer
from evidence.log import WIDTH, Log
from evidence.merkle import EMPTY_ROOT
from evidence.notes import Checkpoint, open_checkpoint
from evidence.record import INSTALLATION, MAX_RECORD, assemble
from evidence.spool import Line, SpoolFile, spool_files
from evidence.verifier import VerificationFailed, check_record, parse_canonical

MAX_BATCH = 2048
IDLE_SECONDS = 0.25


def _no_step(_name: str) -> None:
    """The default hook: tests put one in that stops the process between two steps."""


class LeaseTaken(EvidenceUnavailable):
    """Another process sequences this log just now."""


class Sequencer:
    """Integrates the spools of the evidence folder `folder` into its log, which is made on first use."""

    def __init__(
        self, folder: Path, *, origin: str, clock: Clock | None = None, step: Callable[[str], None] = _no_step
    ) -> None:
        self.folder = folder
        self._clock = clock or SystemClock()
        self._step = step
        make_folder(folder / "spool")
        make_folder(folder / "log")
        self._origin = origin

    def integrate_once(self) -> int:
        """Takes everything that is spooled now into the log; returns how many records. LeaseTaken while another process does it.

        EvidenceUnavailable or InvalidProof when the log must not be extended: the message says what was found.
        """
        with self._lease():
            return _Holder(self.folder, self._origin, self._clock, self._step).drain()

    def integrate_if_free(self) -> int | None:
        """As `integrate_once`; None, at once, when another process is at it (its next batch takes what is spooled)."""
        try:
            return self.integrate_once()
        except LeaseTaken:
            return None

    def run(self, stop: threading.Event, *, interval: float = IDLE_SECONDS) -> None:
        """Integrates until `stop`; waits for the lease first, so that a second sequencer stands by."""
        while not stop.is_set():
            try:
                with self._lease():
                    holder = _Holder(self.folder, self._origin, self._clock, self._step)
                    while not stop.is_set():
                        holder.drain()
                        stop.wait(interval)
                    holder.drain()
            except LeaseTaken:
                stop.wait(interval)

    @contextmanager
    def _lease(self) -> Iterator[None]:
        path = self.folder / "lease"
        with trouble("the lease of the log cannot be opened", path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            if not try_lock(fd):
                raise LeaseTaken("another sequencer holds the lease of this log", where=str(path))
            yield
        finally:
            os.close(fd)


class _Holder:
    """The work of whoever holds the lease: mends what a crash left, then integrates."""

    def __init__(self, folder: Path, origin: str, clock: Clock, step: Callable[[str], None]) -> None:
        self.spool = folder / "spool"
        self.clock, self.step = clock, step
        self.signer = log_signer(folder, origin)
        self.log = Log(folder / "log", self.signer.verifier_key)
        self.next = folder / "log" / "checkpoint.next"
        self.published = folder / "log" / "checkpoint"
        self.witnessed = folder / "last-signed"
        self.size = self._recover()
        self.recent = self._recent()
        self._settle()

    # --- mending ---

    def _recover(self) -> int:
        """The size of the log, once its files are known to agree with what was signed."""
        self._finish_publishing()
        current = self.log.checkpoint()
        if current is None:
            if any((self.log.folder / "tile").glob("**/*")) or self.witnessed.exists():
                raise EvidenceUnavailable(
                    "the log has lost its checkpoint; restore it from a backup (signing another could fork the log)",
                    where=str(self.published),
                )
            self._publish(0, EMPTY_ROOT)
            return 0
        self._check_not_rolled_back(current)
        self._check_tiles(current)
        return current.size

    def _finish_publishing(self) -> None:
        """A crash between signing and publishing: what was signed is published, or nothing else may be."""
        if not self.next.exists():
            return
        current = self.log.checkpoint()
        try:
            signed = open_checkpoint(self.next.read_bytes(), self.signer.verifier_key)
        except InvalidProof:
            self.next.unlink()  # torn while it was written: its signature never was whole
            return
        if current is not None and signed.size <= current.size:
            self.next.unlink()
            return
        self._check_tiles(signed)
        self.next.replace(self.published)
        sync_folder(self.published.parent)

    def _check_not_rolled_back(self, current: Checkpoint) -> None:
        """A log restored from an old backup would sign other roots for sizes that were signed before."""
        if not self.witnessed.exists():
            return
        last = open_checkpoint(self.witnessed.read_bytes(), self.signer.verifier_key)
        if last.size > current.size or (last.size == current.size and last.root != current.root):
            raise EvidenceUnavailable(
                f"the log holds {current.size} records but {last.size} were signed: it was rolled back or cut; restore the newest backup",
                where=str(self.published),
            )

    def _check_tiles(self, checkpoint: Checkpoint) -> None:
        if self.log.root(checkpoint.size) != checkpoint.root:
            raise EvidenceUnavailable(
                f"the tiles do not give the root that the checkpoint of size {checkpoint.size} signs; restore the log from a backup",
                where=str(self.log.folder),
            )

    def _recent(self) -> dict[str, None]:
        """The ids of the last records, in order: at least the whole last batch."""
        start = max(0, self.size - MAX_BATCH)
        found: dict[str, None] = {}
        for _, leaf in self.log.entries(start, self.size, self.size):
            found[str(loads_object(leaf)["id"])] = None
        return found

    def _settle(self) -> None:
        """Marks lines that the last batch took before a crash kept it from marking them: always the first of each file."""
        for file in spool_files(self.spool):
            end = None
            for line in file.lines():
                if self._record(file, line)["id"] not in self.recent:
                    break
                end = line.end
            if end is not None:
                file.mark(end)

    # --- integrating ---

    def drain(self) -> int:
        """Batches until the spools are empty."""
        total = 0
        while True:
            taken = self._batch()
            total += taken
            if taken < MAX_BATCH:
                return total

    def _batch(self) -> int:
        # 1. Collect.
        records, ends = self._collect()
        self.step("collected")
        if records:
            # 2. Records, then hashes.
            leaves = [assemble(record, self.size + at) for at, record in enumerate(records)]
            self.log.write_entries(self.size, leaves)
            self.step("entries")
            self.log.write_tiles(self.size, leaves)
            self.step("tiles")
            # 3. and 4. Sign and publish.
            before, self.size = self.size, self.size + len(leaves)
            self._publish(self.size, self.log.root(self.size))
            self._remember([str(record["id"]) for record in records])
            self.step("published")
            self.log.remove_partials(before, self.size)
        # 5. Only now are the lines done.
        for file, end in ends:
            file.mark(end)
        self.step("marked")
        for file in spool_files(self.spool):
            file.remove_if_finished()
        return len(records)

    def _collect(self) -> tuple[list[dict[str, Any]], list[tuple[SpoolFile, int]]]:
        records: dict[str, dict[str, Any]] = {}
        ends: list[tuple[SpoolFile, int]] = []
        for file in spool_files(self.spool):
            end = None
            for line in file.lines():
                if len(records) >= MAX_BATCH:
                    break
                end = line.end
                record = self._record(file, line)
                if record["id"] not in self.recent:
                    records.setdefault(record["id"], record)
            if end is not None:
                ends.append((file, end))
        return [records[key] for key in sorted(records)], ends

    def _record(self, file: SpoolFile, line: Line) -> dict[str, Any]:
        """The record of a line; for a line that is damaged, a finding that says so, since silence would hide a lost record."""
        data = line.record or b""
        try:
            record = parse_canonical(data, "spool")
            check_record({**record, "seq": 0} if isinstance(record, dict) else record, "spool")
        except VerificationFailed:
            return self._damage(file, line.end)
        return record if len(data) <= MAX_RECORD else self._damage(file, line.end)

    def _damage(self, file: SpoolFile, end: int) -> dict[str, Any]:
        # The same line gives the same id each time it is read, so that a crash cannot put the finding there twice.
        name = uuid.uuid5(uuid.NAMESPACE_OID, f"{file.path.stem} {end}")
        return {
            "v": 1, "id": str(name), "time": self.clock.now_unix(), "kind": "finding", "actor": INSTALLATION,
            "tenant": INSTALLATION, "subject": f"spool/{file.path.stem}", "decision": None, "digests": {}, "controls": [],
            "commitments": {}, "details": {"finding": "damaged spool line", "end_offset": end},
        }  # fmt: skip

    def _publish(self, size: int, root: bytes) -> None:
        note = self.signer.checkpoint(size, root)
        with trouble("the checkpoint cannot be written", self.next):
            fd = os.open(self.next, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
            try:
                write_all(fd, note)
                os.fsync(fd)
            finally:
                os.close(fd)
            sync_folder(self.next.parent)
            self.step("signed")
            self.next.replace(self.published)
            sync_folder(self.published.parent)
        replace(self.witnessed, note)

    def _remember(self, ids: list[str]) -> None:
        self.recent.update(dict.fromkeys(ids))
        for old in list(self.recent)[: max(0, len(self.recent) - MAX_BATCH - WIDTH)]:
            del self.recent[old]
