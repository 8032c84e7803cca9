"""Keys that wrap the keys of sealed weights. The provider keeps them; nothing here holds a plaintext key longer than a use.

`InsecureLocalKeys` keeps them in plain files: for a laptop or a test. `profile: production` refuses it.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import BadInput, ConfigError, NotFound, SealBroken, Unavailable
from core.ids import uuid7
from core.names import check_digest
from weights.files import sync_folder

KEY_BYTES = 32
NONCE_BYTES = 12
WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + 16
_CONTEXT = b"portcullis.dev weights key v1\x00"
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9:/._-]{0,255}\Z")
"""What goes into the evidence log with a release; ARNs and resource names fit, sentences and addresses do not."""
_KEK = re.compile(r"local-[0-9a-f-]{36}\Z")


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """The key of one sealed folder under one key-encryption key; worth nothing without the provider."""

    provider: str
    kek: str
    wrapped: bytes = field(repr=False)

    def as_json(self) -> dict[str, str]:
        return {"provider": self.provider, "kek": self.kek, "wrapped": base64.b64encode(self.wrapped).decode()}

    @classmethod
    def of(cls, value: object) -> WrappedKey:
        """From its JSON. BadInput for anything else."""
        if not isinstance(value, dict) or value.keys() != {"provider", "kek", "wrapped"}:
            raise BadInput("a wrapped key has exactly provider, kek and wrapped", where="keys")
        if not all(isinstance(item, str) and 0 < len(item) <= 2048 for item in value.values()):
            raise BadInput("must be short texts", where="keys")
        if not _PROVIDER.match(value["provider"]) or not _ID.match(value["kek"]):
            raise BadInput("provider and kek are names as key services write them; no blanks, no @", where="keys")
        try:
            wrapped = base64.b64decode(value["wrapped"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadInput("must be standard base64", where="keys.wrapped") from error
        return cls(value["provider"], value["kek"], wrapped)


class KeyProvider(Protocol):
    """Wraps and unwraps. What is wrapped for one manifest opens for no other: its digest is part of what is authenticated."""

    @property
    def name(self) -> str: ...

    async def wrap(self, key: bytes, manifest_digest: str) -> WrappedKey: ...

    async def unwrap(self, wrapped: WrappedKey, manifest_digest: str) -> bytes: ...


class InsecureLocalKeys:
    """AES-256-GCM under keys in files (0600) of `folder`; the newest wraps, all unwrap."""

    name = "local"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def generate(self) -> str:
        """Makes a key-encryption key and gives its id. Nothing is overwritten. Unavailable when the folder cannot be written."""
        kek = f"local-{uuid7()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._create(kek)
            sync_folder(self._folder)
        except OSError as error:
            raise Unavailable(f"the key cannot be written: {error.strerror}", where=str(self._folder)) from error
        return kek

    def _create(self, kek: str) -> None:
        """Written whole under a name of its own, then linked: a key that is there is a whole one, and on the disk."""
        draft = self._folder / f".{kek}.draft"
        try:
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as stream:
                stream.write(os.urandom(KEY_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
            os.link(draft, self._folder / f"{kek}.key")
        finally:
            draft.unlink(missing_ok=True)

    def list(self) -> list[str]:
        """The ids, oldest first (they begin with the time they were made)."""
        return sorted(path.stem for path in self._folder.glob("local-*.key")) if self._folder.is_dir() else []

    async def wrap(self, key: bytes, manifest_digest: str) -> WrappedKey:
        """Under the newest key. NotFound while there is none."""
        known = self.list()
        if not known:
            raise NotFound("there is no key-encryption key yet; make one with portcullis weights keygen")
        if len(key) != KEY_BYTES:
            raise BadInput(f"a key of sealed weights has {KEY_BYTES} bytes, not {len(key)}")
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self._read(known[-1])).encrypt(nonce, key, _aad(known[-1], manifest_digest))
        return WrappedKey(self.name, known[-1], nonce + sealed)

    async def unwrap(self, wrapped: WrappedKey, manifest_digest: str) -> bytes:
        """SealBroken when it was wrapped for another manifest or changed; NotFound for a key that is not here."""
        if wrapped.provider != self.name or not _KEK.match(wrapped.kek):
            raise NotFound("wrapped by a provider that is not configured here", where="keys")
        if len(wrapped.wrapped) != WRAPPED_BYTES:
            raise SealBroken("the wrapped key has a wrong length", where="keys")
        nonce, sealed = wrapped.wrapped[:NONCE_BYTES], wrapped.wrapped[NONCE_BYTES:]
        try:
            return AESGCM(self._read(wrapped.kek)).decrypt(nonce, sealed, _aad(wrapped.kek, manifest_digest))
        except InvalidTag:
            raise SealBroken("the wrapped key was changed, or belongs to another manifest", where="keys") from None

    def _read(self, kek: str) -> bytes:
        path = self._folder / f"{kek}.key"
        try:
            status = path.stat()
            key = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound("the key-encryption key is not here", where=kek) from error
        except OSError as error:
            raise Unavailable(f"the key-encryption key cannot be read: {error.strerror}", where=kek) from error
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError("others may read this key-encryption key; run chmod 600 on it", where=str(path))
        if len(key) != KEY_BYTES:
            raise Unavailable("the key-encryption key has a wrong length", where=kek)
        return key


def _aad(kek: str, manifest_digest: str) -> bytes:
    return _CONTEXT + kek.encode() + b"\x00" + check_digest(manifest_digest, "manifest digest").encode()
