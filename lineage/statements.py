"""Approvals of models: signed statements (`core.dsse`) over a manifest digest."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core import dsse
from core.errors import BadInput
from core.names import ModelRef, check_digest

PREDICATE = "https://portcullis.dev/approval/v1"


@dataclass(frozen=True, slots=True)
class Approval:
    """What one envelope says, its signature not checked yet."""

    tenant: str
    model: ModelRef
    manifest_digest: str
    issued_unix: int
    statement: dsse.Statement

    @property
    def key_id(self) -> str:
        return self.statement.key_id

    def signed_by(self, public_key: bytes) -> bool:
        """Whether the signature is this raw Ed25519 key's."""
        return self.statement.signed_by(public_key)


def approve(key: Ed25519PrivateKey, *, tenant: str, model: ModelRef, manifest_digest: str, issued_unix: int) -> bytes:
    """The signed envelope of one approval."""
    check_digest(manifest_digest, "manifest digest")
    predicate = {"decision": "approve", "tenant": tenant, "model": str(model), "issued_unix": issued_unix}
    return dsse.sign(key, subject=str(model), digest=manifest_digest, predicate_type=PREDICATE, predicate=predicate)


def read_approval(data: bytes) -> Approval:
    """What an envelope says. BadInput for everything that is not exactly one approval with one signature."""
    statement = dsse.read(data, predicate_type=PREDICATE, fields="decision tenant model issued_unix")
    predicate = statement.predicate
    if predicate["decision"] != "approve" or statement.subject != predicate["model"]:
        raise BadInput("the statement must approve the model that is its subject", where="predicate")
    return Approval(
        tenant=dsse.text(predicate["tenant"], "predicate.tenant"),
        model=ModelRef.parse(dsse.text(predicate["model"], "predicate.model")),
        manifest_digest=statement.digest,
        issued_unix=dsse.seconds(predicate["issued_unix"], "predicate.issued_unix"),
        statement=statement,
    )
