"""`core.ports.Recorder` over the spool: what doors and rooms hand their events and decisions to."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from core.canonical import canonical, sha256
from core.clock import SystemClock
from core.decision import Decision, Violation
from core.errors import BadInput, EvidenceUnavailable
from core.ids import uuid7
from core.ports import Clock
from core.record import Entry, RecordKind
from evidence.bundles import Bundles
from evidence.payloads import Payloads
from evidence.record import MAX_RECORD, spooled
from evidence.spool import Durability, Spool

DECISION_BYTES = MAX_RECORD // 2
"""A decision larger than this is kept beside the log; the record holds its digest and the first violations."""
SHOWN_VIOLATIONS = 20

NoteKind = Literal["review", "incident", "drill", "training", "override"]
NOTE_KINDS: tuple[NoteKind, ...] = get_args(NoteKind)
"""What people do and say so themselves. Every other kind is written by what did it, so a note can pass for none of them."""


class EvidenceRecorder:
    """Writes records into the evidence folder `folder`. Made once per process, safe to share; `close` when done."""

    def __init__(self, folder: Path, *, durability: Durability = "batched", clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._strict = durability == "strict"
        self._spool = Spool(folder / "spool", durability=durability)
        self._payloads = Payloads(folder, sync=self._strict)
        self._bundles = Bundles(folder)

    async def event(self, entry: Entry) -> str:
        """Appends a record; returns its id. EvidenceUnavailable when it is not recorded: then it must not happen."""
        if self._strict:
            return await asyncio.to_thread(self._append, entry)
        return self._append(entry)

    def _append(self, entry: Entry) -> str:
        record_id = uuid7()
        self._spool.append(spooled(entry, record_id=record_id, time=self._clock.now_unix()))
        return record_id

    async def decision(
        self,
        kind: RecordKind,
        decision: Decision,
        input: Mapping[str, Any],
        *,
        actor: str,
        tenant: str,
        subject: str,
        digests: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> str:
        """Keeps `input`, then appends the record of `decision`. EvidenceUnavailable as `event`.

        A decision without an input digest was made because its input could not be written as JSON: it is recorded without one.
        """
        entry = Entry(
            kind,
            actor,
            tenant,
            subject,
            decision_document(decision),
            dict(digests or {}),
            controls_of(decision),
            {},
            dict(details or {}),
        )
        if self._strict:
            return await asyncio.to_thread(self._decide, entry, decision, input)
        return self._decide(entry, decision, input)

    def _decide(self, entry: Entry, decision: Decision, input: Mapping[str, Any]) -> str:
        kept = dict(entry.digests)
        document = dict(entry.decision or {})
        if decision.input_digest:
            kept["input"] = self._payloads.put(entry.tenant, _input_bytes(decision, input))
        try:
            whole = canonical(document)
        except (BadInput, TypeError, ValueError) as error:
            raise EvidenceUnavailable(f"the decision cannot be written as JSON: {error}", where=entry.kind) from error
        if len(whole) > DECISION_BYTES:
            kept["decision"] = self._payloads.put(entry.tenant, whole)
            document = shortened(document)
        return self._append(replace(entry, decision=document, digests=kept))

    async def note(self, kind: NoteKind, *, actor: str, tenant: str, subject: str, text: str) -> str:
        """Records what people did; the record's id. The text, which may name people, lies sealed beside the log under a digest
        that is salted, so that the record tells nothing of it. EvidenceUnavailable as `event`; BadInput for any other kind."""
        if kind not in NOTE_KINDS:
            raise BadInput(f"a note is one of {', '.join(NOTE_KINDS)}", where="kind")
        document = canonical({"salt": secrets.token_hex(16), "text": text})

        def keep() -> str:
            digest = self._payloads.put(tenant, document)
            return self._append(Entry(kind, actor, tenant, subject, digests={"note": digest}))

        return await asyncio.to_thread(keep) if self._strict else keep()

    def keep_bundle(self, revision: str, files: Mapping[str, bytes]) -> None:
        """Keeps the policy bundle that decides from now on. Doors call it when they load an engine; once kept, it is a no-op.

        Broken when `files` are not that revision, EvidenceUnavailable when they cannot be written.
        """
        self._bundles.keep(revision, files)

    def close(self) -> None:
        self._spool.close()


def _input_bytes(decision: Decision, input: Mapping[str, Any]) -> bytes:
    """The input exactly as its digest was taken; EvidenceUnavailable when it is another input."""
    # For text and integers under plain keys the quick writer gives the canonical bytes; the digest says whether it did.
    try:
        quick = json.dumps(input, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        if sha256(quick) == decision.input_digest:
            return quick
        exact = canonical(dict(input))
    except (BadInput, TypeError, ValueError, RecursionError) as error:
        raise EvidenceUnavailable("the decision's input cannot be written as JSON", where="input") from error
    if sha256(exact) != decision.input_digest:
        raise EvidenceUnavailable("the input handed in is not the one that was decided on", where="input")
    return exact


def _violation(violation: Violation) -> dict[str, Any]:
    named = {"exemption": violation.exemption} if violation.exemption else {}
    return {"rule": violation.rule, "mode": violation.mode, "path": violation.path, "args": dict(violation.args), **named}


def decision_document(decision: Decision) -> dict[str, Any]:
    """`decision` as the log keeps it: no messages (they are made again from the rule's METADATA), no timing."""
    return {
        "decision_id": decision.decision_id,
        "domain": decision.domain,
        "allow": decision.allow,
        "evaluated": list(decision.evaluated),
        "grants": list(decision.grants),
        "violations": [_violation(violation) for violation in decision.violations],
        "warnings": [_violation(violation) for violation in decision.warnings],
        "obligations": dict(decision.obligations),
        "policy_revision": decision.policy_revision,
        "config_revision": decision.config_revision,
        "engine": decision.engine,
        "input_digest": decision.input_digest,
    }


def shortened(document: Mapping[str, Any]) -> dict[str, Any]:
    """A decision too large for a leaf: rules and counts stay, the rest is in the payload that `digests.decision` names."""
    short = {name: document[name] for name in document if name not in ("violations", "warnings", "grants", "obligations")}
    for name in ("violations", "warnings"):
        short[name] = [{**entry, "path": str(entry["path"])[:200], "args": {}} for entry in document[name][:SHOWN_VIOLATIONS]]
    count = len(document["violations"])
    return {**short, "evaluated": document["evaluated"][:200], "grants": [], "obligations": {}, "violation_count": count}


def controls_of(decision: Decision) -> tuple[str, ...]:
    """The framework controls that the decision bears on: those of what it found."""
    return tuple(
        sorted({control for violation in (*decision.violations, *decision.warnings) for control in violation.controls})
    )
