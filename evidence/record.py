"""From what a room hands in (`core.record.Entry`) to the bytes of a leaf. docs/formats/evidence-record.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.canonical import canonical
from core.errors import BadInput, EvidenceUnavailable
from core.jsonread import check_depth
from core.record import RECORD_KINDS, Entry
from evidence import verifier
from evidence.log import MAX_ENTRY

VERSION = 1
INSTALLATION = "portcullis"
"""Actor and tenant of what the installation records about itself."""
MAX_RECORD = MAX_ENTRY - 64
"""What a record may measure before it gets its `seq`."""


def spooled(entry: Entry, *, record_id: str, time: int) -> bytes:
    """The record of `entry` without its `seq`, as canonical JSON.

    EvidenceUnavailable when it cannot be a record (an unknown kind, values that JSON cannot carry, more than 64 KiB): what cannot
    be recorded must not happen.
    """
    if entry.kind not in RECORD_KINDS:
        raise EvidenceUnavailable(f"{str(entry.kind)[:40]!r} is not a kind of record", where="kind")
    record: dict[str, Any] = {
        "v": VERSION,
        "id": record_id,
        "time": time,
        "kind": entry.kind,
        "actor": entry.actor,
        "tenant": entry.tenant,
        "subject": entry.subject,
        "decision": None if entry.decision is None else dict(entry.decision),
        "digests": dict(entry.digests),
        "controls": list(entry.controls),
        "commitments": dict(entry.commitments),
    }
    if entry.details:
        record["details"] = dict(entry.details)
    try:
        data = canonical(record)
        check_depth(data)
    except (BadInput, TypeError, ValueError) as error:
        raise EvidenceUnavailable(f"the record cannot be written as JSON: {error}", where=entry.kind) from error
    if len(data) > MAX_RECORD:
        raise EvidenceUnavailable(f"the record has {len(data)} bytes; a leaf of the log holds {MAX_RECORD}", where=entry.kind)
    return data


def assemble(record: Mapping[str, Any], seq: int) -> bytes:
    """The leaf: the spooled record at its place in the log."""
    return verifier.canonical({**record, "seq": seq})
