"""C2SP signed notes with Ed25519, as checkpoints of the log use them: signing here, opening through `evidence.verifier`."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.errors import BadSignature, ConfigError, InvalidProof
from evidence import verifier
from evidence.verifier import Checkpoint, VerifierKey

__all__ = ["Checkpoint", "Signer", "VerifierKey", "open_checkpoint", "open_note"]


class Signer:
    """An Ed25519 key with the name it signs under. ConfigError when the name cannot stand in a note."""

    def __init__(self, name: str, private: bytes) -> None:
        try:
            verifier.check_key_name(name)
        except verifier.VerificationFailed as error:
            raise ConfigError(str(error), where="evidence.origin") from error
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        public = self._key.public_key().public_bytes_raw()
        self.verifier_key = VerifierKey(name, verifier.key_id(name, public), public)

    @property
    def name(self) -> str:
        return self.verifier_key.name

    def sign(self, text: str) -> bytes:
        """`text` (which ends with a newline) as a note signed by this key."""
        blob = self.verifier_key.key_id + self._key.sign(text.encode())
        return f"{text}\n\u2014 {self.name} {base64.b64encode(blob).decode()}\n".encode()

    def checkpoint(self, size: int, root: bytes) -> bytes:
        """A signed tlog-checkpoint whose origin is the key's name."""
        return self.sign(Checkpoint(self.name, size, root).text)


def open_note(data: bytes, keys: list[VerifierKey]) -> str:
    """The text of a note signed by one of `keys`.

    Signatures of unknown keys are ignored; BadSignature when a known key's is wrong, or when no known key signed.
    """
    try:
        return verifier.open_note(data, keys)
    except verifier.VerificationFailed as error:
        raise BadSignature(str(error)) from error


def open_checkpoint(data: bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint that `key` signed. InvalidProof when it is not that."""
    try:
        return verifier.open_checkpoint(data, key)
    except verifier.VerificationFailed as error:
        raise InvalidProof(str(error), where="checkpoint") from error
