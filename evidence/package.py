"""An evidence package: what an auditor takes away and checks without us. docs/formats/evidence-package.md.

The archive is written so that equal content is equal bytes, and the manifest is signed by the log's key, so that a courier can
neither change a byte nor leave records out.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.canonical import canonical, sha256
from core.clock import SystemClock
from core.errors import BadInput, Broken, NotFound
from core.ports import Clock
from evidence.bundles import Bundles
from evidence.commitments import SaltedCommitments
from evidence.files import replace
from evidence.keys import log_signer
from evidence.log import Log
from evidence.merkle import inclusion_proof
from evidence.notes import Checkpoint, open_checkpoint
from evidence.payloads import Payloads
from evidence.reader import Reader, Stored
from evidence.verifier import FORMAT, VerificationFailed, leaf_hash, manifest_text, pack, references


@dataclass(frozen=True, slots=True)
class Exported:
    """What went into a package. `withheld` counts leaves of other tenants that are there as bare hashes."""

    path: Path
    records: int
    withheld: int
    first: int
    last: int
    size: int
    digest: str


async def export(
    path: Path,
    folder: Path,
    *,
    origin: str,
    tenant: str | None = None,
    since: int | None = None,
    until: int | None = None,
    with_names: bool = False,
    commitments: SaltedCommitments | None = None,
    earlier: bytes | None = None,
    clock: Clock | None = None,
) -> Exported:
    """Writes the records of the evidence folder `folder` (of `tenant`, dated `since` <= time < `until`) to the zip file `path`.

    `with_names` adds what opens the commitments (personal data; the caller has checked that it is allowed) and needs
    `commitments`. `earlier` is a checkpoint the receiver holds; the package then proves that the log extends it.

    Raises NotFound when no record fits or an input is gone, Broken when something kept is not what the log says, BadInput for
    an `earlier` that is no checkpoint of this log or a package too large.
    """
    writer = _Export(folder, origin, tenant, since, until)
    chosen = await asyncio.to_thread(writer.choose)
    names: dict[str, dict[str, str]] = {}
    if with_names:
        if commitments is None:
            raise BadInput("names were asked for, but nothing that opens commitments was handed in")
        names = await commitments.open(references([item.record for item in chosen]), tenant=tenant)
    created = (clock or SystemClock()).now_unix()
    data = await asyncio.to_thread(writer.build, names if with_names else None, earlier, created)
    await asyncio.to_thread(_save, path, data)
    return Exported(
        path, len(chosen), len(writer.leaves) - len(chosen), writer.first, writer.last, writer.checkpoint.size, sha256(data)
    )


def _save(path: Path, data: bytes) -> None:
    if not path.parent.is_dir():
        raise BadInput("the folder does not exist; make it first", where=str(path.parent))
    replace(path, data)


class _Export:
    """One export: chooses the leaves, then builds the files."""

    def __init__(self, folder: Path, origin: str, tenant: str | None, since: int | None, until: int | None) -> None:
        self.folder, self.tenant, self.since, self.until = folder, tenant, since, until
        self.reader = Reader(folder)
        self.signer = log_signer(folder, origin)
        note = self.reader.log.checkpoint_note()
        if note is None:
            raise NotFound("the log has no checkpoint yet: nothing has been sequenced", where=str(folder))
        self.note = note
        self.checkpoint = open_checkpoint(note, self.reader.log.key)
        self.leaves: list[Stored] = []
        self.chosen: list[Stored] = []
        self.first = self.last = 0

    @property
    def log(self) -> Log:
        return self.reader.log

    def choose(self) -> list[Stored]:
        """From the first to the last leaf of the window without a gap; clocks differ, so some may lie outside it by time."""
        pending: list[Stored] = []
        for item in self.reader.stored(end=self.checkpoint.size):
            inside = (self.since is None or item.record["time"] >= self.since) and (
                self.until is None or item.record["time"] < self.until
            )
            if inside or self.leaves:
                pending.append(item)
            if inside:
                self.leaves += pending
                pending = []
        self.chosen = [item for item in self.leaves if self.tenant is None or item.record["tenant"] == self.tenant]
        if not self.chosen:
            whose = "no record" if self.tenant is None else f"no record of tenant {self.tenant[:80]!r}"
            raise NotFound(f"{whose} in this window; nothing was written")
        self.first, self.last = self.leaves[0].seq, self.leaves[-1].seq
        return self.chosen

    def build(self, names: Mapping[str, Any] | None, earlier: bytes | None, created: int) -> bytes:
        files = {
            "checkpoint": self.note,
            "records.jsonl": b"".join(item.leaf + b"\n" for item in self.chosen),
            "keys/log.pub": f"{self.signer.verifier_key}\n".encode(),
            **self._proofs(earlier),
            **self._inputs(),
            **self._bundles(),
        }
        if names is not None:
            files["names.json"] = canonical(dict(names))
        manifest = canonical(
            {
                "format": FORMAT,
                "created": created,
                "tenant": self.tenant,
                "since": self.since,
                "until": self.until,
                "first": self.first,
                "last": self.last,
                "files": {name: sha256(data) for name, data in files.items()},
            }
        )
        files["manifest.json"] = manifest
        files["manifest.note"] = self.signer.sign(manifest_text(self.signer.name, manifest))
        try:
            return pack(files)
        except VerificationFailed as error:
            raise BadInput(f"{error}; choose a shorter window") from error

    def _proofs(self, earlier: bytes | None) -> dict[str, bytes]:
        shown = {item.seq for item in self.chosen}
        withheld = {str(item.seq): _text(leaf_hash(item.leaf)) for item in self.leaves if item.seq not in shown}
        nodes_size = self.checkpoint.size
        paths = [canonical([_text(step) for step in proof]) for proof in self._paths(nodes_size)]
        consistency: dict[str, list[str]] = {}
        if earlier is not None:
            before = self._earlier(earlier)
            consistency[str(before.size)] = [_text(step) for step in self.log.consistency_proof(before.size, nodes_size)]
        return {
            "proofs/inclusion.jsonl": b"".join(path + b"\n" for path in paths),
            "proofs/withheld.json": canonical(withheld),
            "proofs/consistency.json": canonical(consistency),
        }

    def _paths(self, size: int) -> list[list[bytes]]:
        nodes = self.log.nodes(size)
        return [inclusion_proof(item.seq, size, nodes) for item in self.leaves]

    def _earlier(self, note: bytes) -> Checkpoint:
        try:
            before = open_checkpoint(note, self.log.key)
        except Broken as error:
            raise BadInput(f"not a checkpoint of this log: {error.message}", where="earlier") from error
        if before.size > self.checkpoint.size:
            raise Broken(
                f"the earlier checkpoint has {before.size} records, the log {self.checkpoint.size}: the log was rolled back",
                where="earlier",
            )
        return before

    def _inputs(self) -> dict[str, bytes]:
        store = Payloads(self.folder)
        files: dict[str, bytes] = {}
        for item in self.chosen:
            for role in ("input", "decision"):
                digest = item.record["digests"].get(role)
                if digest is not None:
                    files["inputs/" + digest.removeprefix("sha256:")] = store.get(item.record["tenant"], digest)
        return files

    def _bundles(self) -> dict[str, bytes]:
        store = Bundles(self.folder)
        revisions = {str((item.record["decision"] or {}).get("policy_revision") or "") for item in self.chosen} - {""}
        return {
            f"bundles/{revision.removeprefix('sha256:')}/{name}": data
            for revision in sorted(revisions)
            for name, data in store.load(revision).items()
        }


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
