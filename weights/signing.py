"""OMS signatures (OpenSSF Model Signing) over a folder, with elliptic-curve keys, through the `model-signing` package.

A signature covers every file of the folder but itself and `keys.json` (which a rewrap changes); a file that it does not cover
makes verification fail. No network: keys are pinned by whoever verifies.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core.errors import BadInput, BadSignature, Conflict, NotFound, Unavailable
from weights.manifest import KEYS, SIGNATURE

NOT_COVERED = (SIGNATURE, KEYS)


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


def sign(folder: Path, private_key: Path, *, signature: Path | None = None) -> Path:
    """Signs the folder as it is; the signature's path. Conflict when it is signed already, BadInput for an unusable key."""
    from model_signing import signing

    folder = folder.resolve()  # the package compares ignored paths as absolute ones
    target = (signature or folder / SIGNATURE).absolute()
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
        config.set_hashing_config(_hashing(folder, target)).sign(folder, target)
    except OSError as error:
        target.unlink(missing_ok=True)  # half a signature would pass for one until somebody verifies it
        raise Unavailable(f"the signature cannot be written: {error.strerror}", where=str(target)) from error
    except ValueError as error:
        raise BadInput(f"cannot be signed: {error}", where=str(folder)) from error
    return target


def verify(folder: Path, public_key: Path, *, signature: Path | None = None) -> None:
    """Passes when every file of the folder is what this key signed. BadSignature otherwise, and when there is no signature."""
    from model_signing import verifying

    folder = folder.resolve()
    target = (signature or folder / SIGNATURE).absolute()
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
        config.set_hashing_config(_hashing(folder, target)).verify(folder, target)
    except Exception as error:
        # The package raises whatever its parsers raise; whatever it is, nothing has been verified.
        raise BadSignature(f"NOT VERIFIED: {_first_line(error)}", where=str(folder)) from error


def _hashing(folder: Path, signature: Path) -> Any:
    from model_signing import hashing

    beside = [folder / name for name in NOT_COVERED] + ([signature] if signature.parent == folder else [])
    return (
        hashing.Config()
        .use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
        .set_ignored_paths(paths=[path for path in beside if path.exists() or path == signature], ignore_git_paths=False)
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
