"""Approvals as DSSE envelopes around in-toto statements over a manifest digest, signed with Ed25519.

DSSE v1.0.2 (secure-systems-lab/dsse), in-toto Statement v1. Exactly one signature: an approval is one person's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core import jsonread
from core.canonical import canonical
from core.errors import BadInput
from core.names import ModelRef, check_digest

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://portcullis.dev/approval/v1"
MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Approval:
    """What one envelope says, its signature not checked yet: `signed` is what the signature is over."""

    tenant: str
    model: ModelRef
    manifest_digest: str
    issued_unix: int
    key_id: str
    signature: bytes
    signed: bytes

    def signed_by(self, public_key: bytes) -> bool:
        """Whether the signature is this raw Ed25519 key's."""
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.signature, self.signed)
        except (InvalidSignature, ValueError):
            return False
        return True


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def approve(key: Ed25519PrivateKey, *, tenant: str, model: ModelRef, manifest_digest: str, issued_unix: int) -> bytes:
    """The signed envelope of one approval."""
    check_digest(manifest_digest, "manifest digest")
    payload = canonical(
        {
            "_type": STATEMENT,
            "subject": [{"name": str(model), "digest": {"sha256": manifest_digest.removeprefix("sha256:")}}],
            "predicateType": PREDICATE,
            "predicate": {"decision": "approve", "tenant": tenant, "model": str(model), "issued_unix": issued_unix},
        }
    )
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = {
        "keyid": "ed25519:" + hashlib.sha256(raw).hexdigest()[:32],
        "sig": base64.b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode(),
    }
    return canonical({"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [signature]})


def read_approval(data: bytes) -> Approval:
    """What an envelope says. BadInput for everything that is not exactly one approval with one signature."""
    envelope = _closed(
        jsonread.loads_object(data, max_bytes=MAX_BYTES, max_depth=8), "payloadType payload signatures", "envelope"
    )
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise BadInput(f"must be {PAYLOAD_TYPE}", where="payloadType")
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise BadInput("an approval has exactly one signature", where="signatures")
    signature = _closed(signatures[0], "keyid sig", "signatures[0]")
    payload = _base64(envelope["payload"], "payload")
    statement = _closed(
        jsonread.loads_object(payload, max_bytes=MAX_BYTES, max_depth=8), "_type subject predicateType predicate", "statement"
    )
    if statement["_type"] != STATEMENT or statement["predicateType"] != PREDICATE:
        raise BadInput(f"must be a {STATEMENT} with the predicate {PREDICATE}", where="statement")
    predicate = _closed(statement["predicate"], "decision tenant model issued_unix", "predicate")
    subjects = statement["subject"]
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise BadInput("an approval is about exactly one subject", where="subject")
    subject = _closed(subjects[0], "name digest", "subject[0]")
    if predicate["decision"] != "approve" or subject["name"] != predicate["model"]:
        raise BadInput("the statement must approve the model that is its subject", where="predicate")
    issued = predicate["issued_unix"]
    if isinstance(issued, bool) or not isinstance(issued, int) or issued < 0:
        raise BadInput("must be whole Unix seconds", where="predicate.issued_unix")
    return Approval(
        tenant=_text(predicate["tenant"], "predicate.tenant"),
        model=ModelRef.parse(_text(predicate["model"], "predicate.model")),
        manifest_digest=check_digest(
            "sha256:" + _text(_closed(subject["digest"], "sha256", "digest")["sha256"], "digest.sha256")
        ),
        issued_unix=issued,
        key_id=_text(signature["keyid"], "signatures[0].keyid"),
        signature=_base64(signature["sig"], "signatures[0].sig"),
        signed=pae(PAYLOAD_TYPE, payload),
    )


def _closed(value: Any, names: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != set(names.split()):
        raise BadInput(f"must be an object with exactly {names.replace(' ', ', ')}", where=where)
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise BadInput("must be text of 1 to 256 characters", where=where)
    return value


def _base64(value: Any, where: str) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "!", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput("must be standard base64", where=where) from error
