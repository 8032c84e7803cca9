"""OMS signatures (OpenSSF Model Signing) over a folder, with elliptic-curve keys, through the `model-signing` package.

A signature covers every file of the folder but itself and, in a sealed folder, `keys.json` (which a rewrap changes); a file that
it does not cover makes verification fail. No network: keys are pinned by whoever verifies.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core.errors import BadInput, BadSignature, Conflict, NotFound, Unavailable
from core.jsonread import loads_object
from weights.files import read_small, walk
from weights.manifest import KEYS, SIGNATURE
from weights.sealed import is_sealed

MAX_SIGNATURE_BYTES = 64 * 1024 * 1024
"""It names every file: some 300 bytes each."""


def generate(path: Path) -> Path:
    """Makes an EC P-256 key pair: `path` (0600) and `path`.pub, both PEM; gives the latter. Conflict when one is there."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    target = path.with_name(path.name + ".pub")
    if target.exists():
        raise Conflict("is there already; nothing was written", where=str(target))
    _new(path, private, 0o600)
    _new(target, public, 0o644)
    return target


def sign(folder: Path, private_key: Path) -> Path:
    """Signs the folder as it is; the signature's path. Conflict when it is signed already, BadInput for an unusable key."""
    from model_signing import signing

    folder = folder.resolve()  # the package compares ignored paths as absolute ones
    target = folder / SIGNATURE
    if target.exists():
        raise Conflict("is signed already; remove the signature to sign anew", where=str(target))
    _check_folder(folder)
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except FileNotFoundError as error:
        raise NotFound("there is no such key", where=str(private_key)) from error
    except Exception as error:
        raise BadInput(f"is not an EC private key in PEM ({type(error).__name__})", where=str(private_key)) from error
    try:
        config.set_hashing_config(_hashing(_not_covered(folder))).sign(folder, target)
    except OSError as error:
        target.unlink(missing_ok=True)  # half a signature would pass for one until somebody verifies it
        raise Unavailable(f"the signature cannot be written: {error.strerror}", where=str(target)) from error
    except ValueError as error:
        raise BadInput(f"cannot be signed: {error}", where=str(folder)) from error
    return target


def verify(folder: Path, public_key: Path) -> int:
    """How many files the folder has, when every one of them is what this key signed. BadSignature otherwise, and when there is
    no signature. `keys.json` of a sealed folder and the signature itself are not counted."""
    from model_signing import verifying

    folder = folder.resolve()
    target = folder / SIGNATURE
    _check_folder(folder)
    if not target.is_file():
        raise BadSignature("NOT VERIFIED: there is no signature", where=str(target))
    if not public_key.is_file():
        raise NotFound("there is no such key", where=str(public_key))
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:
        raise BadInput(f"is not an EC public key in PEM ({type(error).__name__})", where=str(public_key)) from error
    try:
        beside = _not_covered(folder)
        config.set_hashing_config(_hashing(beside)).verify(folder, target)
        return _check_covered(folder, beside, target)
    except Exception as error:
        # The package raises whatever its parsers raise; whatever it is, nothing has been verified.
        raise BadSignature(f"NOT VERIFIED: {_first_line(error)}", where=str(folder)) from error


def _not_covered(folder: Path) -> list[Path]:
    """What may change under a good signature: the signature, and the wrapped keys where sealed weights have them, as one file.

    Anything else of that name (a folder of code, a plain model's own file) is somebody's content, and signed as such.
    """
    keys = folder / KEYS
    wrapped = not keys.is_symlink() and keys.is_file() and is_sealed(folder)
    return [folder / SIGNATURE, *([keys] if wrapped else [])]


def _check_covered(folder: Path, beside: list[Path], signature: Path) -> int:
    """How many files there are, each of them named by the verified signature. ValueError otherwise: to the package a file counts
    as covered too when the signature only says that its path, or that of a folder above it, was left out."""
    envelope = loads_object(read_small(signature, MAX_SIGNATURE_BYTES), max_bytes=MAX_SIGNATURE_BYTES)["dsseEnvelope"]
    statement = loads_object(base64.b64decode(envelope["payload"]), max_bytes=MAX_SIGNATURE_BYTES)
    named = {item["name"] for item in statement["predicate"]["resources"]}
    found = [path for path in walk(folder) if folder / path not in beside]
    uncovered = sorted(set(found) - named)
    if uncovered:
        raise ValueError(f"not covered by the signature: {', '.join(uncovered[:5])}")
    return len(found)


def _hashing(not_covered: list[Path]) -> Any:
    from model_signing import hashing

    return (
        hashing.Config()
        .use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
        .set_ignored_paths(paths=not_covered, ignore_git_paths=False)
    )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise NotFound("is no folder", where=str(folder))


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__


def _new(path: Path, data: bytes, mode: int) -> None:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise Conflict("is there already; nothing was written", where=str(path)) from error
    except OSError as error:
        raise Unavailable(f"cannot be written: {error.strerror}", where=str(path)) from error
    with os.fdopen(file, "wb") as stream:
        stream.write(data)
