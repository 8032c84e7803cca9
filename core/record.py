"""What a room hands to the evidence log; the log adds `v`, `id`, `seq` and `time`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

RecordKind = Literal[
    "admission", "inference.intent", "inference.outcome", "approval", "revocation", "key_release", "card", "dataset",
    "consent", "evaluation", "lineage", "deployment", "policy_change", "exemption", "freeze", "redaction_summary",
    "retention", "erasure", "access", "config_change", "scan", "finding", "alert", "incident", "review", "drill",
    "training", "override",
]  # fmt: skip
RECORD_KINDS: tuple[RecordKind, ...] = get_args(RecordKind)


@dataclass(frozen=True, slots=True)
class Entry:
    """One event. `actor` is a reference (`ports.Commitments`), and so is `subject` where it is a person.

    `decision` is `Decision` as the log keeps it (no messages: those are made again from the rule's METADATA); `digests`
    maps a role (`input`, `manifest`, `response`) to `sha256:…`; `commitments` maps a name to a salted commitment.
    """

    kind: RecordKind
    actor: str
    tenant: str
    subject: str
    decision: Mapping[str, Any] | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    commitments: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    """Low-cardinality facts without personal data (status, counts, action)."""
