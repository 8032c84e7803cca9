"""FLOE: random-access authenticated encryption in independent segments (c2sp.org/FLOE; eprint 2025/2275).

A ciphertext is a header (parameters, IV, a tag that commits to key, IV, associated data and parameters) and one or more segments,
each AES-256-GCM under a key derived per 2^20 segments with HKDF-Expand-SHA-384, its position and whether it is the last one in
its associated data. So a wrong key, context or parameter dies at the header, and segments cannot be moved, dropped or added.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from core.errors import BadInput, SealBroken

KEY_BYTES = 32
IV_BYTES = 32
HEADER_TAG_BYTES = 32
HEADER_BYTES = 10 + IV_BYTES + HEADER_TAG_BYTES
MESSAGE_KEY_BYTES = 48
NONCE_BYTES, TAG_BYTES, LENGTH_BYTES = 12, 16, 4
OVERHEAD = LENGTH_BYTES + NONCE_BYTES + TAG_BYTES
NOT_LAST = 0xFFFFFFFF
MAX_SEGMENT_BYTES = 64 * 1024 * 1024
"""What is ever held in memory at once, whatever a header asks for."""
MAX_SEGMENTS = 2**40

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Parameters:
    """`segment_bytes` is the length of an encrypted segment (ENC_SEG_LEN), its overhead of 32 bytes included.

    2^`rotation_mask` segments share a derived key; 20 is the specification's, and only its known answers use another.
    """

    segment_bytes: int = 1024 * 1024
    rotation_mask: int = 20

    def __post_init__(self) -> None:
        if not OVERHEAD < self.segment_bytes <= MAX_SEGMENT_BYTES:
            raise BadInput(f"a segment has {OVERHEAD + 1} to {MAX_SEGMENT_BYTES} bytes, not {self.segment_bytes}")
        if not 0 <= self.rotation_mask <= 20:
            raise BadInput(f"the rotation mask is 0 to 20, not {self.rotation_mask}")

    @property
    def plain_bytes(self) -> int:
        """How much plaintext an inner segment holds."""
        return self.segment_bytes - OVERHEAD

    def encode(self) -> bytes:
        """PARAM_ENCODE: AES-256-GCM is AEAD 0, HKDF-Expand-SHA-384 is KDF 0."""
        return struct.pack(">BBII", 0, 0, self.segment_bytes, IV_BYTES)

    def sealed_bytes(self, plain: int) -> int:
        """The length of the whole ciphertext of `plain` bytes, as `encrypt` makes it."""
        return HEADER_BYTES + max(1, -(-plain // self.plain_bytes)) * OVERHEAD + plain


DEFAULT = Parameters()


class _Message:
    """One ciphertext's keys."""

    def __init__(self, key: bytes, iv: bytes, aad: bytes, parameters: Parameters) -> None:
        if len(key) != KEY_BYTES:
            raise BadInput(f"the key has {len(key)} bytes; FLOE takes {KEY_BYTES}")
        self._parameters = parameters
        self._prefix = parameters.encode() + iv
        self._aad = aad
        self._mask = ~((1 << parameters.rotation_mask) - 1)
        self._epoch = -1
        self._cipher: AESGCM | None = None
        self.header = self._prefix + self._kdf(key, b"HEADER_TAG:", HEADER_TAG_BYTES)
        self._message_key = self._kdf(key, b"MESSAGE_KEY:", MESSAGE_KEY_BYTES)

    def _kdf(self, key: bytes, purpose: bytes, length: int) -> bytes:
        return HKDFExpand(SHA384(), length, self._prefix + purpose + self._aad).derive(key)

    def _at(self, position: int) -> AESGCM:
        epoch = position & self._mask
        if epoch != self._epoch or self._cipher is None:
            derived = self._kdf(self._message_key, b"DEK:" + struct.pack(">Q", epoch), KEY_BYTES)
            self._cipher, self._epoch = AESGCM(derived), epoch
        return self._cipher

    def seal(self, plain: bytes | memoryview, position: int, nonce: bytes, *, last: bool) -> bytes:
        if position >= MAX_SEGMENTS - (not last):
            raise BadInput(f"a FLOE ciphertext has at most {MAX_SEGMENTS} segments")
        body = self._at(position).encrypt(nonce, plain, struct.pack(">QB", position, last))
        return struct.pack(">I", OVERHEAD + len(plain) if last else NOT_LAST) + nonce + body

    def open(self, segment: bytes | memoryview, position: int, *, last: bool) -> bytes:
        """The plaintext of one whole segment. SealBroken when it is not exactly the one for this place."""
        size = len(segment)
        fits = OVERHEAD <= size <= self._parameters.segment_bytes if last else size == self._parameters.segment_bytes
        if not fits or position >= MAX_SEGMENTS - (not last):
            raise SealBroken("a segment is missing, cut or too many", where=f"segment {position}")
        if int.from_bytes(segment[:LENGTH_BYTES], "big") != (size if last else NOT_LAST):
            raise SealBroken("the segment is not the one for this place", where=f"segment {position}")
        nonce = bytes(segment[LENGTH_BYTES : LENGTH_BYTES + NONCE_BYTES])
        try:
            return self._at(position).decrypt(nonce, segment[LENGTH_BYTES + NONCE_BYTES :], struct.pack(">QB", position, last))
        except InvalidTag:
            raise SealBroken("the segment was changed, or belongs elsewhere", where=f"segment {position}") from None


def _opened(header: bytes, key: bytes, aad: bytes, parameters: Parameters) -> _Message:
    """The message behind a header. SealBroken for other parameters, a wrong key or a wrong context: nothing else was read yet."""
    if len(header) != HEADER_BYTES:
        raise SealBroken(f"the header is cut: {len(header)} of {HEADER_BYTES} bytes", where="header")
    if header[:10] != parameters.encode():
        raise SealBroken("the header asks for other parameters than this seal has", where="header")
    message = _Message(key, header[10 : 10 + IV_BYTES], aad, parameters)
    if not hmac.compare_digest(message.header, header):
        raise SealBroken("the header does not belong to this key and context", where="header")
    return message


def encrypt(
    plaintext: bytes, key: bytes, aad: bytes, parameters: Parameters = DEFAULT, *, random: Random = os.urandom
) -> bytes:
    """The whole ciphertext of `plaintext`. BadInput for a key of another length."""
    step = parameters.plain_bytes
    starts = range(0, max(len(plaintext), 1), step)
    message = _Message(key, random(IV_BYTES), aad, parameters)
    view = memoryview(plaintext)
    parts = [
        message.seal(view[at : at + step], position, random(NONCE_BYTES), last=position == len(starts) - 1)
        for position, at in enumerate(starts)
    ]
    return b"".join([message.header, *parts])


def decrypt(ciphertext: bytes, key: bytes, aad: bytes, parameters: Parameters = DEFAULT) -> bytes:
    """The plaintext. SealBroken when anything was changed, moved, cut or added, BadInput for a key of another length."""
    message = _opened(ciphertext[:HEADER_BYTES], key, aad, parameters)
    view, position, at, parts = memoryview(ciphertext), 0, HEADER_BYTES, []
    while True:
        segment = view[at : at + parameters.segment_bytes]
        last = at + parameters.segment_bytes >= len(view) and int.from_bytes(segment[:LENGTH_BYTES], "big") != NOT_LAST
        parts.append(message.open(segment, position, last=last))
        at, position = at + len(segment), position + 1
        if last:
            return b"".join(parts)


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Seekable(Reader, Protocol):
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


def encrypt_file(
    source: Reader,
    sink: Writer,
    key: bytes,
    aad: bytes,
    parameters: Parameters = DEFAULT,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Encrypts `source` to its end into `sink`, one segment in memory; how many plain bytes there were."""
    message = _Message(key, os.urandom(IV_BYTES), aad, parameters)
    sink.write(message.header)
    total, position = 0, 0
    current = _read(source, parameters.plain_bytes)
    while True:
        following = _read(source, parameters.plain_bytes) if len(current) == parameters.plain_bytes else b""
        last = not following
        sink.write(message.seal(current, position, os.urandom(NONCE_BYTES), last=last))
        total += len(current)
        progress(len(current))
        if last:
            return total
        current, position = following, position + 1


class Opener:
    """A sealed file, read anywhere. The last segment is authenticated first, so that a cut file is known as such before its
    length means anything (rage#195). After one error every further read fails: nobody goes on with half a file."""

    def __init__(self, source: Seekable, key: bytes, aad: bytes, parameters: Parameters = DEFAULT) -> None:
        self._source = source
        self._parameters = parameters
        self._broken = False
        total = source.seek(0, os.SEEK_END)
        source.seek(0)
        self._header = _read(source, HEADER_BYTES)
        self._message = _opened(self._header, key, aad, parameters)
        body = total - HEADER_BYTES
        self._inner = max(0, -(-body // parameters.segment_bytes) - 1)
        """How many segments come before the last one."""
        self.size = self._inner * parameters.plain_bytes + len(self._segment(self._inner))
        """The plaintext's length."""

    def segments(self, seen: Callable[[bytes], object] = lambda _: None) -> Iterator[bytes]:
        """The plaintext in order, each piece authenticated before it is given.

        `seen` gets the ciphertext in order, exactly the bytes that were decrypted: a digest over them is a digest over what was read.
        """
        seen(self._header)
        for position in range(self._inner + 1):
            yield self._segment(position, seen)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer at the end. BadInput for a negative one."""
        if offset < 0 or length < 0:
            raise BadInput("offset and length are not negative")
        end = min(offset + length, self.size)
        step = self._parameters.plain_bytes
        parts = []
        for position in range(offset // step, -(-end // step) if offset < end else 0):
            piece = self._segment(position)
            parts.append(piece[max(0, offset - position * step) : end - position * step])
        return b"".join(parts)

    def _segment(self, position: int, seen: Callable[[bytes], object] = lambda _: None) -> bytes:
        if self._broken:
            raise SealBroken("an earlier read of this file failed; nothing more is read", where=f"segment {position}")
        self._broken = True
        self._source.seek(HEADER_BYTES + position * self._parameters.segment_bytes)
        segment = _read(self._source, self._parameters.segment_bytes)
        seen(segment)
        plain = self._message.open(segment, position, last=position == self._inner)
        self._broken = False
        return plain


def _read(source: Reader, size: int) -> bytes:
    """Exactly `size` bytes, fewer only at the end of the file."""
    data = source.read(size)
    while len(data) < size and (more := source.read(size - len(data))):
        data += more
    return data
