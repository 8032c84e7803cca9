"""Approvers' Ed25519 keys: making one, reading a public one, and refusing those with which anyone could sign."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from core.errors import BadInput, Conflict, Unavailable

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_HELP = "give the raw 32 bytes or the PEM of an Ed25519 public key (the .pub file of `portcullis identity keygen`)"


def key_id_of(public_key: bytes) -> str:
    """`ed25519:` and the first 32 hex digits of the SHA-256 of the raw public key."""
    return "ed25519:" + hashlib.sha256(public_key).hexdigest()[:32]


def read_public_key(key: bytes | str) -> bytes:
    """The raw public key behind `key` (32 raw bytes, or PEM as bytes or text).

    Raises BadInput for anything else, and for points of small order: under such a key one signature fits many messages
    (RFC 8032, 5.1.7 does not refuse them; see "Taming the many EdDSAs", 2020).
    """
    raw = key if isinstance(key, bytes) and len(key) == 32 else _from_pem(key)
    if not _is_sound(raw):
        raise BadInput("this Ed25519 public key is not a sound point of the curve; make a new key pair")
    return raw


def _from_pem(key: bytes | str) -> bytes:
    data = key.encode("utf-8", "replace") if isinstance(key, str) else key
    if b"PRIVATE KEY" in data:
        raise BadInput(f"this is a private key and must stay with its owner; {_HELP}")
    if len(data) > 4096:
        raise BadInput(f"{len(data)} bytes are no public key; {_HELP}")
    try:
        loaded = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"this is not a public key; {_HELP}") from error
    if not isinstance(loaded, Ed25519PublicKey):
        raise BadInput(f"this is a public key of another kind; {_HELP}")
    return loaded.public_bytes_raw()


def _is_sound(raw: bytes) -> bool:
    """Canonically encoded, on the curve, and not one of the eight points of small order (RFC 8032, 5.1.3)."""
    encoded = int.from_bytes(raw, "little")
    y = encoded & ((1 << 255) - 1)
    if y >= _P:
        return False
    # x^2 = (y^2 - 1) / (d y^2 + 1); the denominator is never 0 because -1/d is no square.
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if pow(x_squared, (_P - 1) // 2, _P) not in (0, 1):
        return False
    # 8A = 0 exactly for small order. Doubling needs y and x^2 only: y' = (y^2 + x^2) / (2 - y^2 + x^2),
    # x'^2 = 4 x^2 y^2 / (y^2 - x^2)^2, from the addition law of the curve -x^2 + y^2 = 1 + d x^2 y^2.
    for _ in range(3):
        y, x_squared = _double(y, x_squared)
    return not (y == 1 and x_squared == 0)


def _double(y: int, x_squared: int) -> tuple[int, int]:
    y_squared = y * y % _P
    doubled_y = (y_squared + x_squared) * pow(2 - y_squared + x_squared, -1, _P) % _P
    doubled_x_squared = 4 * x_squared * y_squared * pow((y_squared - x_squared) ** 2, -1, _P) % _P
    return doubled_y, doubled_x_squared


def keygen(path: Path) -> str:
    """Writes a new private key to `path` (PEM, PKCS #8, mode 0600) and its public key to `path`.pub; returns the key's id.

    Raises Conflict when either file exists (a key is never overwritten), Unavailable when they cannot be written.
    """
    private = Ed25519PrivateKey.generate()
    public = private.public_key()
    secret = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    shown = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    beside = path.with_name(path.name + ".pub")
    _write_new(beside, shown, 0o644)
    try:
        _write_new(path, secret, 0o600)
    except (Conflict, Unavailable):
        beside.unlink()
        raise
    return key_id_of(public.public_bytes_raw())


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise Conflict("the file exists and is not overwritten; choose another name", where=str(path)) from error
    except OSError as error:
        raise Unavailable(f"the key cannot be written: {error.strerror}", where=str(path)) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink()
        raise Unavailable(f"the key cannot be written: {error.strerror}", where=str(path)) from error
