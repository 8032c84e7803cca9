"""Reading the log: records one by one with filters, one record by its id, and its proof."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import InvalidProof, NotFound
from core.jsonread import loads_object
from evidence.files import trouble
from evidence.log import WIDTH, Log
from evidence.notes import Checkpoint, VerifierKey, open_checkpoint
from evidence.verifier import VerificationFailed

PROOF_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it stands in the log: its place, its exact bytes, and what they say."""

    seq: int
    leaf: bytes
    record: dict[str, Any]


def public_key(folder: Path) -> VerifierKey:
    """The verifier key of the log in evidence folder `folder`. NotFound while there is none, InvalidProof when it cannot be read."""
    path = folder / "keys" / "log.pub"
    with trouble("the log's public key cannot be read", path):
        if not path.exists():
            raise NotFound("there is no evidence log here yet: nothing has been sequenced", where=str(folder))
        text = path.read_text("utf-8")
    try:
        return VerifierKey.parse(text)
    except VerificationFailed as error:
        raise InvalidProof(str(error), where=str(path)) from error


class Reader:
    """The log of the evidence folder `folder`, as of its checkpoint at the moment of each call.

    Needs no lease and no secret. NotFound while there is no log; InvalidProof where a record is not what the tree commits to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = Log(folder / "log", public_key(folder))

    def checkpoint(self) -> Checkpoint:
        checkpoint = self.log.checkpoint()
        if checkpoint is None:
            raise NotFound("the log has no checkpoint yet: nothing has been sequenced", where=str(self.folder))
        return checkpoint

    def stored(self, *, start: int = 0, end: int | None = None) -> Iterator[Stored]:
        """Every record from `start` to before `end`, lazily, in the order of `seq`."""
        size = self.checkpoint().size
        for seq, leaf in self.log.entries(start, size if end is None else min(end, size), size):
            yield Stored(seq, leaf, loads_object(leaf))

    def records(
        self,
        *,
        kind: str | Collection[str] | None = None,
        tenant: str | None = None,
        since: int | None = None,
        until: int | None = None,
        subject: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The records that fit all filters: `since` <= time < `until`, in Unix seconds."""
        kinds = {kind} if isinstance(kind, str) else kind
        for item in self.stored():
            record = item.record
            if (
                (kinds is None or record["kind"] in kinds)
                and (tenant is None or record["tenant"] == tenant)
                and (since is None or record["time"] >= since)
                and (until is None or record["time"] < until)
                and (subject is None or record["subject"] == subject)
            ):
                yield record

    def find(self, wanted: str) -> Stored:
        """The record with this id, or the one that holds the decision with this id. NotFound when the log has neither.

        Looks first where records of the time that the id carries (RFC 9562, UUIDv7) stand, then ever further away from there.
        """
        needle = wanted.encode()
        size = self.checkpoint().size
        for number in self._outward(_time_of(wanted), size):
            for seq, leaf in self.log.entries(number * WIDTH, (number + 1) * WIDTH, size):
                if needle not in leaf:
                    continue
                record = loads_object(leaf)
                if wanted in (record["id"], (record["decision"] or {}).get("decision_id")):
                    return Stored(seq, leaf, record)
        raise NotFound(f"the log holds no record and no decision {wanted[:80]!r}")

    def _outward(self, time: int | None, size: int) -> Iterator[int]:
        """The numbers of all tiles: the one that holds `time` first, its neighbours next. The order of a log is nearly that of time."""
        count = -(-size // WIDTH)
        low, high = 0, count if time is not None else 1
        while high - low > 1:
            middle = (low + high) // 2
            _, leaf = next(self.log.entries(middle * WIDTH, middle * WIDTH + 1, size))
            low, high = (middle, high) if loads_object(leaf)["time"] <= (time or 0) else (low, middle)
        yield from sorted(range(count), key=lambda number: abs(number - low))

    def prove(self, wanted: str) -> str:
        """The record's inclusion as a C2SP tlog-proof, which other programs can verify against the record's bytes."""
        found = self.find(wanted)
        # After the record was found: this checkpoint, or a later one, covers it.
        note = self.log.checkpoint_note()
        if note is None:
            raise NotFound("the log has no checkpoint", where=str(self.folder))
        size = open_checkpoint(note, self.log.key).size
        proof = self.log.inclusion_proof(found.seq, size)
        lines = [PROOF_HEADER, f"index {found.seq}", *(base64.b64encode(step).decode() for step in proof), "", note.decode()]
        return "\n".join(lines)


def _time_of(id: str) -> int | None:
    """The second that a UUIDv7 was made in; None for any other text."""
    try:
        value = uuid.UUID(id)
    except ValueError:
        return None
    return (value.int >> 80) // 1000 if value.version == 7 else None
