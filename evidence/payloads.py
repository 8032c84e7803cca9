"""Decision inputs beside the log: sealed per tenant, found by digest, so that a decision can be recomputed.

`inputs/<tenant>/<ab>/<digest>` is nonce (12 bytes) || AES-256-GCM ciphertext under the tenant's key; tenant and digest are
authenticated with it, so a file moved to another place does not open.
"""

from __future__ import annotations

import os
import secrets
from collections import OrderedDict
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.canonical import sha256
from core.errors import Broken, NotFound
from core.names import check_digest
from evidence.files import FOLDER, PRIVATE, read_secret, replace, sync_folder, trouble, write_all
from evidence.keys import payload_key, tenant_folder

NONCE = 12
REMEMBERED = 4096


class Payloads:
    """The payload store of the evidence folder `folder`. With `sync`, `put` returns only when the payload is on the disk."""

    def __init__(self, folder: Path, *, sync: bool = False) -> None:
        self.folder = folder
        self._sync = sync
        self._ciphers: dict[str, AESGCM] = {}
        self._stored: OrderedDict[tuple[str, str], None] = OrderedDict()

    def path(self, tenant: str, digest: str) -> Path:
        hexadecimal = check_digest(digest).removeprefix("sha256:")
        return self.folder / "inputs" / tenant_folder(tenant) / hexadecimal[:2] / hexadecimal

    def put(self, tenant: str, data: bytes) -> str:
        """Keeps `data`; returns its digest. EvidenceUnavailable when it cannot be written."""
        digest = sha256(data)
        if (tenant, digest) in self._stored:
            return digest
        nonce = secrets.token_bytes(NONCE)
        sealed = nonce + self._cipher(tenant).encrypt(nonce, data, _bound(tenant, digest))
        self._store(self.path(tenant, digest), sealed)
        self._stored[tenant, digest] = None
        if len(self._stored) > REMEMBERED:
            self._stored.popitem(last=False)
        return digest

    def _store(self, path: Path, sealed: bytes) -> None:
        """Written in place, for speed: until this returns no record names the file, and one that a crash left torn is replaced."""
        with trouble("the input cannot be written", path):
            try:
                fd = self._create(path)
            except FileExistsError:
                if path.stat().st_size != len(sealed):
                    replace(path, sealed, sync=self._sync)
                return
            try:
                write_all(fd, sealed)
                if self._sync:
                    os.fsync(fd)
            finally:
                os.close(fd)
            if self._sync:
                sync_folder(path.parent)

    def _create(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, PRIVATE)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER)
            return os.open(path, flags, PRIVATE)

    def get(self, tenant: str, digest: str) -> bytes:
        """The payload. NotFound when it was never kept or has been erased, Broken when it is not what its digest says."""
        path = self.path(tenant, digest)
        try:
            with trouble("the input cannot be read", path):
                sealed = path.read_bytes() if path.exists() else None
            if sealed is None or read_secret(self._key_path(tenant)) is None:
                raise NotFound(f"the input {digest} is not kept (erased, or its key is gone)", where=str(path))
            data = self._cipher(tenant).decrypt(sealed[:NONCE], sealed[NONCE:], _bound(tenant, digest))
        except (InvalidTag, ValueError) as error:
            raise Broken(f"the input {digest} was changed or damaged on disk", where=str(path)) from error
        if sha256(data) != digest:
            raise Broken(f"the input {digest} is not what its digest says", where=str(path))
        return data

    def _key_path(self, tenant: str) -> Path:
        return self.folder / "keys" / "inputs" / f"{tenant_folder(tenant)}.key"

    def _cipher(self, tenant: str) -> AESGCM:
        if tenant not in self._ciphers:
            self._ciphers[tenant] = AESGCM(payload_key(self.folder, tenant))
        return self._ciphers[tenant]


def _bound(tenant: str, digest: str) -> bytes:
    return b"portcullis payload v1\n" + tenant.encode() + b"\n" + digest.encode()
