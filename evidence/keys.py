"""The keys of the evidence folder: the log's signing key, and the secrets that seal what lies beside the log."""

from __future__ import annotations

import hashlib
from pathlib import Path

from core.errors import EvidenceUnavailable
from evidence.files import read_secret, replace, secret
from evidence.notes import Signer


def log_signer(folder: Path, origin: str) -> Signer:
    """The signer of the log in evidence folder `folder`; makes `keys/log.key` (0600) and `keys/log.pub` on first use.

    EvidenceUnavailable when a log is there whose key is gone: a new key would be a new log, and nobody could tell it from a forgery.
    """
    path = folder / "keys" / "log.key"
    if read_secret(path) is None and (folder / "log" / "checkpoint").exists():
        raise EvidenceUnavailable("the log's signing key is gone; restore it from a backup", where=str(path))
    signer = Signer(origin, secret(path))
    public = folder / "keys" / "log.pub"
    text = f"{signer.verifier_key}\n".encode()
    if not public.exists():
        replace(public, text)
    elif public.read_bytes() != text:
        raise EvidenceUnavailable(
            f"the log belongs to another origin or key than {origin}; evidence.origin cannot change once a log exists",
            where=str(public),
        )
    return signer


def tenant_folder(tenant: str) -> str:
    """The name under which a tenant's files lie; says nothing about the tenant's name beyond equality."""
    return hashlib.sha256(b"portcullis tenant v1\n" + tenant.encode()).hexdigest()[:32]


def payload_key(folder: Path, tenant: str) -> bytes:
    """The key that seals one tenant's decision inputs."""
    return secret(folder / "keys" / "inputs" / f"{tenant_folder(tenant)}.key")
