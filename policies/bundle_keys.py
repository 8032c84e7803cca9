"""Keys that bundles are signed with: Ed25519, or ECDSA on the curve P-256, the one of the two that OPA takes for bundles that it polls.

OPA 1.22 checks `EdDSA` for files (`opa run --bundle … --signing-alg EdDSA`), but its configuration's section `keys` refuses that
name. Both kinds sign the same bytes the same each time, ECDSA by RFC 6979.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from core.canonical import sha256
from core.errors import BadInput

SigningKey = Ed25519PrivateKey | EllipticCurvePrivateKey
VerifyKey = Ed25519PublicKey | EllipticCurvePublicKey
HALF = 32
"""Bytes of each of the two numbers in an ES256 signature (RFC 7518, section 3.4)."""


def read_signing_key(pem: bytes, *, where: str) -> SigningKey:
    """The private key in `pem`. BadInput for anything that bundles are not signed with."""
    try:
        found = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput("is no private key in PEM that can be read", where=where) from error
    if isinstance(found, Ed25519PrivateKey) or (
        isinstance(found, EllipticCurvePrivateKey) and isinstance(found.curve, SECP256R1)
    ):
        return found
    raise BadInput("is neither an Ed25519 key nor one on the curve P-256", where=where)


def read_verify_key(pem: bytes, *, where: str) -> VerifyKey:
    """The public key in `pem`. BadInput as `read_signing_key`."""
    try:
        found = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput("is no public key in PEM that can be read", where=where) from error
    if isinstance(found, Ed25519PublicKey) or (
        isinstance(found, EllipticCurvePublicKey) and isinstance(found.curve, SECP256R1)
    ):
        return found
    raise BadInput("is neither an Ed25519 key nor one on the curve P-256", where=where)


def algorithm(key: SigningKey | VerifyKey) -> str:
    """Its name in a JSON web signature (RFC 7518, RFC 8037). The key says it, never what was sent."""
    return "EdDSA" if isinstance(key, (Ed25519PrivateKey, Ed25519PublicKey)) else "ES256"


def signature(key: SigningKey, data: bytes) -> bytes:
    """The signature over `data` as a JSON web signature has it."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(data)
    r, s = decode_dss_signature(key.sign(data, ECDSA(SHA256(), deterministic_signing=True)))
    return r.to_bytes(HALF, "big") + s.to_bytes(HALF, "big")


def check(key: VerifyKey, sent: bytes, data: bytes) -> None:
    """InvalidSignature unless `sent` is `key`'s signature over `data`."""
    if isinstance(key, Ed25519PublicKey):
        return key.verify(sent, data)
    if len(sent) != 2 * HALF:
        raise InvalidSignature
    r, s = (int.from_bytes(part, "big") for part in (sent[:HALF], sent[HALF:]))
    return key.verify(encode_dss_signature(r, s), data, ECDSA(SHA256()))


def key_id(key: VerifyKey) -> str:
    """The key by a digest of itself."""
    if isinstance(key, Ed25519PublicKey):
        return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw))[7:39]
    return sha256(key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint))[7:39]
