"""Signed statements: DSSE envelopes around in-toto statements with one subject, signed with Ed25519.

DSSE v1.0.2 (secure-systems-lab/dsse), in-toto Statement v1. Exactly one signature: a statement is one person's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core import jsonread
from core.canonical import canonical
from core.errors import BadInput
from core.names import check_digest

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Statement:
    """What one envelope says, its signature not checked yet: `signed` is what the signature is over."""

    subject: str
    digest: str
    predicate: Mapping[str, Any]
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


def sign(key: Ed25519PrivateKey, *, subject: str, digest: str, predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """The signed envelope of one statement about `subject` with this sha256 digest. BadInput for what is no digest."""
    check_digest(digest, "digest")
    payload = canonical(
        {
            "_type": STATEMENT,
            "subject": [{"name": subject, "digest": {"sha256": digest.removeprefix("sha256:")}}],
            "predicateType": predicate_type,
            "predicate": dict(predicate),
        }
    )
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = {
        "keyid": "ed25519:" + hashlib.sha256(raw).hexdigest()[:32],
        "sig": base64.b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode(),
    }
    return canonical({"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [signature]})


def read(data: bytes, *, predicate_type: str, fields: str) -> Statement:
    """The statement in an envelope; its predicate has exactly `fields` (names with blanks between).

    BadInput for everything that is not exactly one statement of this type with one subject and one signature.
    """
    envelope = closed(
        jsonread.loads_object(data, max_bytes=MAX_BYTES, max_depth=8), "payloadType payload signatures", "envelope"
    )
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise BadInput(f"must be {PAYLOAD_TYPE}", where="payloadType")
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise BadInput("an approval has exactly one signature", where="signatures")
    signature = closed(signatures[0], "keyid sig", "signatures[0]")
    payload = _base64(envelope["payload"], "payload")
    statement = closed(
        jsonread.loads_object(payload, max_bytes=MAX_BYTES, max_depth=8), "_type subject predicateType predicate", "statement"
    )
    if statement["_type"] != STATEMENT or statement["predicateType"] != predicate_type:
        raise BadInput(f"must be a {STATEMENT} with the predicate {predicate_type}", where="statement")
    subjects = statement["subject"]
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise BadInput("an approval is about exactly one subject", where="subject")
    subject = closed(subjects[0], "name digest", "subject[0]")
    digest = closed(subject["digest"], "sha256", "digest")["sha256"]
    return Statement(
        subject=text(subject["name"], "subject[0].name"),
        digest=check_digest("sha256:" + text(digest, "digest.sha256")),
        predicate=closed(statement["predicate"], fields, "predicate"),
        key_id=text(signature["keyid"], "signatures[0].keyid"),
        signature=_base64(signature["sig"], "signatures[0].sig"),
        signed=pae(PAYLOAD_TYPE, payload),
    )


def closed(value: Any, names: str, where: str) -> dict[str, Any]:
    """`value` as an object with exactly these names. BadInput otherwise."""
    if not isinstance(value, dict) or value.keys() != set(names.split()):
        raise BadInput(f"must be an object with exactly {names.replace(' ', ', ')}", where=where)
    return value


def text(value: Any, where: str) -> str:
    """`value` as text of 1 to 256 characters. BadInput otherwise."""
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise BadInput("must be text of 1 to 256 characters", where=where)
    return value


def seconds(value: Any, where: str) -> int:
    """`value` as whole Unix seconds. BadInput otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadInput("must be whole Unix seconds", where=where)
    return value


def _base64(value: Any, where: str) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "!", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput("must be standard base64", where=where) from error
