"""FLOE against its own known answers, and against everything that shared/failure-cases/weights.md has on record about segments."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput, SealBroken
from tests.conftest import SHARED
from weights import floe
from weights.floe import HEADER_BYTES, OVERHEAD, Opener, Parameters, decrypt, encrypt, encrypt_file

KEY = bytes(range(32))
AAD = b"This is AAD"
SMALL = Parameters(64)
KATS = SHARED / "data" / "floe"
NAMES = sorted(path.name.removesuffix("_ct.txt") for path in KATS.glob("*_ct.txt")) if KATS.is_dir() else []


def parameters_of(name: str) -> Parameters:
    """shared/data/README.md: 4 KB and 64-byte segments; rotation with mask 2; aligned and empty last segments; 40 bytes."""
    if name.endswith("_4K"):
        return Parameters(4096)
    return Parameters(64) if name.endswith("_64") else Parameters(40, 2) if name.endswith("rotation") else Parameters(40)


@pytest.mark.skipif(not NAMES, reason="the known answers lie in ../shared/data/floe, beside the repository")
def test_the_known_answers() -> None:
    assert len(NAMES) == 14
    for name in NAMES:
        plain = bytes.fromhex((KATS / f"{name}_pt.txt").read_text())
        sealed = bytes.fromhex((KATS / f"{name}_ct.txt").read_text())
        assert decrypt(sealed, bytes(32), AAD, parameters_of(name)) == plain, name
        opener = Opener(io.BytesIO(sealed), bytes(32), AAD, parameters_of(name))
        assert (opener.size, b"".join(opener.segments())) == (len(plain), plain), name


@given(st.binary(max_size=400), st.integers(33, 80), st.integers(0, 20), st.binary(max_size=40))
def test_any_length_any_segment_comes_back(plain: bytes, segment: int, mask: int, aad: bytes) -> None:
    parameters = Parameters(segment, mask)
    sealed = encrypt(plain, KEY, aad, parameters)
    assert len(sealed) == parameters.sealed_bytes(len(plain))
    assert decrypt(sealed, KEY, aad, parameters) == plain
    sink = io.BytesIO()
    assert encrypt_file(io.BytesIO(plain), sink, KEY, aad, parameters) == len(plain)
    assert len(sink.getvalue()) == len(sealed)
    assert decrypt(sink.getvalue(), KEY, aad, parameters) == plain


@given(st.binary(max_size=300), st.integers(0, 320), st.integers(0, 320))
def test_reading_anywhere_is_slicing(plain: bytes, offset: int, length: int) -> None:
    opener = Opener(io.BytesIO(encrypt(plain, KEY, AAD, SMALL)), KEY, AAD, SMALL)
    assert opener.size == len(plain)
    assert opener.read(offset, length) == plain[offset : offset + length]


class Trickle(io.BytesIO):
    """Gives at most three bytes at a time, as a pipe may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(3, size) if size and size > 0 else size)


def test_short_reads_are_not_the_end() -> None:
    plain, sink = os.urandom(200), io.BytesIO()
    encrypt_file(Trickle(plain), sink, KEY, AAD, SMALL)
    opener = Opener(Trickle(sink.getvalue()), KEY, AAD, SMALL)
    assert b"".join(opener.segments()) == plain


def opens(sealed: bytes, **other: Any) -> bytes:
    """Both ways of opening must agree; their common answer."""
    key, aad = other.get("key", KEY), other.get("aad", AAD)
    parameters = other.get("parameters", SMALL)
    answers = []
    for way in (
        lambda: decrypt(sealed, key, aad, parameters),
        lambda: b"".join(Opener(io.BytesIO(sealed), key, aad, parameters).segments()),
    ):
        try:
            answers.append(way())
        except SealBroken:
            answers.append(None)
    assert answers[0] == answers[1]
    if answers[0] is None:
        raise SealBroken("both ways")
    return answers[0]


PLAIN = bytes(range(32)) * 3 + b"tail"
SEALED = encrypt(PLAIN, KEY, AAD, SMALL)
SEGMENTS = [SEALED[at : at + 64] for at in range(HEADER_BYTES, len(SEALED), 64)]


def test_row_1_every_bit_flip_is_found() -> None:
    assert opens(SEALED) == PLAIN
    for bit in range(len(SEALED) * 8):
        flipped = bytearray(SEALED)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            opens(bytes(flipped))


def test_row_1_no_plaintext_past_the_last_good_segment() -> None:
    changed = bytearray(SEALED)
    changed[HEADER_BYTES + 64 + 30] ^= 1
    pieces = []
    with pytest.raises(SealBroken):
        pieces.extend(Opener(io.BytesIO(bytes(changed)), KEY, AAD, SMALL).segments())
    assert pieces == [PLAIN[:32]]


def test_row_2_segments_cannot_be_swapped_doubled_dropped_or_moved() -> None:
    head, parts = SEALED[:HEADER_BYTES], SEGMENTS
    other = encrypt(PLAIN, KEY, AAD, SMALL)
    foreign = other[HEADER_BYTES : HEADER_BYTES + 64]
    for wrong in (
        [parts[1], parts[0], *parts[2:]],
        [parts[0], parts[0], *parts[1:]],
        parts[1:],
        [parts[0], *parts[2:]],
        [foreign, *parts[1:]],
        [parts[0], foreign, *parts[2:]],
    ):
        with pytest.raises(SealBroken):
            opens(head + b"".join(wrong))


def test_row_3_truncation_anywhere_is_found() -> None:
    for length in range(len(SEALED)):
        with pytest.raises(SealBroken):
            opens(SEALED[:length])
    with pytest.raises(SealBroken):
        opens(SEALED[:HEADER_BYTES] + b"".join(SEGMENTS[:-1]))


def test_row_4_nothing_can_be_appended() -> None:
    for extra in (b"\x00", b"garbage" * 20, SEGMENTS[0], SEGMENTS[-1], SEGMENTS[0] + SEGMENTS[-1], SEALED):
        with pytest.raises(SealBroken):
            opens(SEALED + extra)


def test_row_5_the_last_segment_is_authenticated_before_the_length_means_anything() -> None:
    with pytest.raises(SealBroken):
        Opener(io.BytesIO(SEALED[: HEADER_BYTES + 128]), KEY, AAD, SMALL)


def test_row_6_after_an_error_later_reads_keep_failing() -> None:
    changed = bytearray(SEALED)
    changed[HEADER_BYTES + 30] ^= 1
    opener = Opener(io.BytesIO(bytes(changed)), KEY, AAD, SMALL)
    with pytest.raises(SealBroken):
        opener.read(0, 1)
    with pytest.raises(SealBroken, match="an earlier read"):
        opener.read(64, 1)


def test_row_7_a_wrong_key_or_context_dies_at_the_header() -> None:
    for key, aad in ((bytes(32), AAD), (KEY, b"another")):
        with pytest.raises(SealBroken, match="key and context"):
            decrypt(SEALED, key, aad, SMALL)
    for size in (0, 16, 31, 33, 64):
        with pytest.raises(BadInput, match=f"the key has {size} bytes"):
            decrypt(SEALED, bytes(size), AAD, SMALL)
        with pytest.raises(BadInput):
            encrypt(b"", bytes(size), AAD, SMALL)


def _times(x: int, y: int) -> int:
    """Multiplication in the field of GHASH (NIST SP 800-38D, 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return product


def _inverse(x: int) -> int:
    """x^(2^128 - 2)."""
    result = x = _times(x, x)
    for _ in range(126):
        x = _times(x, x)
        result = _times(result, x)
    return result


def _blocks(data: bytes) -> list[int]:
    padded = data + bytes(-len(data) % 16)
    return [int.from_bytes(padded[at : at + 16], "big") for at in range(0, len(padded), 16)]


def two_key_ciphertext(keys: tuple[bytes, bytes], nonce: bytes, aad: bytes, blocks: int) -> bytes:
    """A ciphertext and tag that AES-GCM opens under both keys (Len, Grubbs, Ristenpart: Partitioning Oracle Attacks).

    The tag is linear in each ciphertext block, so one free block solves tag(k1) = tag(k2); the rest is arbitrary.
    """

    def block(key: bytes, value: bytes) -> int:
        return int.from_bytes(Cipher(AES(key), ECB()).encryptor().update(value), "big")

    lengths = (len(aad) * 8) << 64 | blocks * 128
    body = [0, *_blocks(os.urandom(16 * (blocks - 1)))]
    partial, powers = [], []
    for key in keys:
        h, tag = block(key, bytes(16)), 0
        for value in (*_blocks(aad), *body, lengths):
            tag = _times(tag ^ value, h)
        power = h
        for _ in range(blocks):
            power = _times(power, h)
        partial.append(tag ^ block(key, nonce + bytes([0, 0, 0, 1])))
        powers.append(power)
    body[0] = _times(partial[0] ^ partial[1], _inverse(powers[0] ^ powers[1]))
    tag = partial[0] ^ _times(body[0], powers[0])
    return b"".join(value.to_bytes(16, "big") for value in (*body, tag))


def test_row_8_one_ciphertext_opens_under_one_key() -> None:
    """AES-GCM does not commit to its key: a segment is built that opens under the derived keys of two. FLOE's header does."""
    keys, iv, nonce = (KEY, bytes(32)), bytes(32), bytes(12)
    messages = [floe._Message(key, iv, AAD, SMALL) for key in keys]
    derived = [message._kdf(message._message_key, b"DEK:" + bytes(8), 32) for message in messages]
    place = struct.pack(">QB", 0, True)
    body = two_key_ciphertext((derived[0], derived[1]), nonce, place, 2)
    plain = [AESGCM(key).decrypt(nonce, body, place) for key in derived]
    assert plain[0] != plain[1]
    segment = struct.pack(">I", 16 + len(body)) + nonce + body
    for message, key, other in zip(messages, keys, reversed(keys), strict=True):
        assert opens(message.header + segment, key=key) in plain
        with pytest.raises(SealBroken):
            opens(message.header + segment, key=other)


def test_row_9_no_key_and_nonce_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealing the same file twice, across rotations: every pair of derived key and nonce is new."""
    seen: list[tuple[bytes, bytes]] = []

    class Watched:
        def __init__(self, key: bytes) -> None:
            self.key, self.inner = key, AESGCM(key)

        def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
            seen.append((self.key, nonce))
            return self.inner.encrypt(nonce, data, aad)

    monkeypatch.setattr(floe, "AESGCM", Watched)
    for _ in range(3):
        encrypt(PLAIN * 4, KEY, AAD, Parameters(64, 1))
    assert len(seen) == len(set(seen)) > 30
    assert len({key for key, _ in seen}) > 15


def test_row_10_lengths_around_a_segment_and_the_count_of_segments() -> None:
    for length in (0, 1, 31, 32, 33, 63, 64, 65):
        assert opens(encrypt(bytes(length), KEY, AAD, SMALL)) == bytes(length)
    message = floe._Message(KEY, bytes(32), AAD, Parameters(64, 20))
    for position in (2**8, 2**16, 2**32, 2**40 - 1):
        segment = message.seal(b"x", position, bytes(12), last=True)
        assert message.open(segment, position, last=True) == b"x"
        with pytest.raises(SealBroken):
            message.open(segment, position - 2**8, last=True)
    with pytest.raises(BadInput, match="at most"):
        message.seal(bytes(32), 2**40 - 1, bytes(12), last=False)


def test_row_11_a_header_cannot_ask_for_anything_else() -> None:
    """Segment length zero or huge, another AEAD, KDF or IV length: refused before anything is allocated."""
    for prefix in (
        struct.pack(">BBII", 0, 0, 0, 32), struct.pack(">BBII", 0, 0, 0xFFFFFFFF, 32), struct.pack(">BBII", 1, 0, 64, 32),
        struct.pack(">BBII", 0, 1, 64, 32), struct.pack(">BBII", 0, 0, 64, 16), struct.pack(">BBII", 0, 0, 128, 32),
    ):  # fmt: skip
        with pytest.raises(SealBroken, match="parameters"):
            decrypt(prefix + SEALED[10:], KEY, AAD, SMALL)
    for segment in (0, OVERHEAD, 64 * 1024 * 1024 + 1, 2**32):
        with pytest.raises(BadInput):
            Parameters(segment)


class Virtual:
    """A ciphertext of any length that is made where it is read."""

    def __init__(self, parameters: Parameters, segments: int) -> None:
        self._message = floe._Message(KEY, bytes(32), AAD, parameters)
        self._parameters, self._segments = parameters, segments
        self._at = 0
        self.size = HEADER_BYTES + segments * parameters.segment_bytes

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (self.size if whence == os.SEEK_END else 0)
        return self._at

    def read(self, size: int) -> bytes:
        if self._at == 0:
            self._at += HEADER_BYTES
            return self._message.header
        position, within = divmod(self._at - HEADER_BYTES, self._parameters.segment_bytes)
        assert (within, size) == (0, self._parameters.segment_bytes)
        self._at += size
        text = position.to_bytes(8, "big").rjust(self._parameters.plain_bytes, b".")
        return self._message.seal(text, position, bytes(12), last=position == self._segments - 1)


@pytest.mark.parametrize("bytes_", [2**31, 2**32, 2**45], ids=["2 GiB", "4 GiB", "32 TiB"])
def test_row_10_reading_around_the_lengths_where_counters_overflow(bytes_: int) -> None:
    parameters = Parameters(4096)
    step = parameters.plain_bytes
    count = bytes_ // step + 100
    opener = Opener(Virtual(parameters, count), KEY, AAD, parameters)
    assert opener.size == count * step > bytes_
    for position in (0, bytes_ // step - 1, bytes_ // step, bytes_ // step + 1, count - 1):
        assert opener.read(position * step, step)[-8:] == position.to_bytes(8, "big")
    assert opener.read(opener.size - 8, 100) == (count - 1).to_bytes(8, "big")
    assert opener.read(opener.size, 1) == b""


def test_row_20_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """32 MB through 64 KiB segments, sealed and opened: never more than a few segments are held."""

    class Sink:
        def write(self, data: bytes) -> None:
            sizes.append(len(data))

    length, parameters, sizes = 32_000_000, Parameters(65_536), list[int]()
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(length)
    tracemalloc.start()
    with (tmp_path / "sparse").open("rb") as file, (tmp_path / "sealed").open("wb") as sealed:
        encrypt_file(file, sealed, KEY, AAD, parameters)
    with (tmp_path / "sealed").open("rb") as sealed:
        for piece in Opener(sealed, KEY, AAD, parameters).segments():
            Sink().write(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == length
    assert peak < 8 * 65_536
