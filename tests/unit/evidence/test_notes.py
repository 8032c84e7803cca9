"""Signed notes and checkpoints: unknown keys ignored, known keys held to their signature."""

from __future__ import annotations

import base64

import pytest

from core.errors import BadSignature, ConfigError, InvalidProof
from evidence.merkle import EMPTY_ROOT
from evidence.notes import Checkpoint, Signer, VerifierKey, open_checkpoint, open_note
from evidence.verifier import VerificationFailed

SIGNER = Signer("example.test/log", bytes(range(32)))
OTHER = Signer("example.test/log", bytes(range(1, 33)))
KEY = SIGNER.verifier_key
NOTE = SIGNER.checkpoint(3, b"\x07" * 32)


def line(note: bytes) -> bytes:
    return note.rsplit(b"\n\n", 1)[1]


def test_the_example_of_the_specification():
    """C2SP signed-note's own example parses, and its key is unknown to us."""
    example = (
        "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
        "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
    ).encode()
    with pytest.raises(BadSignature, match="not signed by the key"):
        open_note(example, [KEY])


def test_the_golang_example_verifies():
    """The example of golang.org/x/mod/sumdb/note, made by the reference implementation."""
    key = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    note = (
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    ).encode()
    assert open_note(note, [key]).startswith("If you think")


def test_round_trip():
    assert open_checkpoint(NOTE, KEY) == Checkpoint("example.test/log", 3, b"\x07" * 32)
    assert VerifierKey.parse(str(KEY)) == KEY


def test_an_unknown_signature_is_ignored():
    foreign = Signer("witness.test", b"\x05" * 32).sign("whatever\n")
    assert open_checkpoint(NOTE + line(foreign), KEY).size == 3
    assert open_checkpoint(NOTE + line(OTHER.sign("x\n")), KEY).size == 3  # the same name under another key id


def test_only_unknown_signatures_is_no_signature():
    with pytest.raises(BadSignature, match="not signed by"):
        open_note(OTHER.checkpoint(3, b"\x07" * 32), [KEY])


def test_a_known_key_with_a_bad_signature_rejects_the_note():
    text = SIGNER.sign("another text\n")
    forged = NOTE.rsplit(b"\n\n", 1)[0] + b"\n\n" + line(text)
    with pytest.raises(BadSignature, match="does not fit"):
        open_note(forged, [KEY])
    with pytest.raises(BadSignature, match="does not fit"):
        open_note(forged + line(OTHER.checkpoint(3, b"\x07" * 32)), [OTHER.verifier_key, KEY])


def test_every_flipped_bit_is_noticed():
    for position in range(len(NOTE)):
        for bit in range(8):
            changed = bytearray(NOTE)
            changed[position] ^= 1 << bit
            with pytest.raises(InvalidProof):
                open_checkpoint(bytes(changed), KEY)


BAD_NOTES = {
    "empty": b"",
    "no signature": b"text\n",
    "no blank line": b"text\n" + line(NOTE),
    "no final newline": NOTE[:-1],
    "hyphen": NOTE.replace("\u2014".encode(), b"-"),
    "control character": NOTE.replace(b"3\n", b"3\r\n", 1),
    "not UTF-8": b"\xff" + NOTE,
    "nameless": b"text\n\n" + "\u2014  AAAAAAAA\n".encode(),
    "not base64": b"text\n\n" + "\u2014 a !!!\n".encode(),
    "short": b"text\n\n" + "\u2014 a AAAA\n".encode(),
    "twice": NOTE + line(NOTE),
    "too many": NOTE + line(OTHER.sign("x\n")) * 64,
    "too large": b"x" * (1 << 20) + NOTE,
}


@pytest.mark.parametrize("note", BAD_NOTES.values(), ids=BAD_NOTES)
def test_bad_notes(note):
    with pytest.raises(BadSignature):
        open_note(note, [KEY])


BAD_CHECKPOINTS = {
    "two lines": "example.test/log\n3\n",
    "leading zero": f"example.test/log\n03\n{base64.b64encode(EMPTY_ROOT).decode()}\n",
    "negative": f"example.test/log\n-3\n{base64.b64encode(EMPTY_ROOT).decode()}\n",
    "short root": "example.test/log\n3\nAAAA\n",
    "empty line": f"example.test/log\n3\n{base64.b64encode(EMPTY_ROOT).decode()}\n\nx\n",
    "other origin": f"example.test/other\n3\n{base64.b64encode(EMPTY_ROOT).decode()}\n",
}


@pytest.mark.parametrize("text", BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS)
def test_bad_checkpoints(text):
    with pytest.raises(InvalidProof):
        open_checkpoint(SIGNER.sign(text), KEY)


BAD_KEYS = {
    "empty": "",
    "two parts": "name+0000",
    "wrong hash": str(KEY).replace(KEY.key_id.hex(), "00000000"),
    "wrong type": f"a+00000000+{base64.b64encode(bytes([4]) + bytes(32)).decode()}",
    "short": f"a+00000000+{base64.b64encode(bytes([1]) + bytes(31)).decode()}",
}


@pytest.mark.parametrize("text", BAD_KEYS.values(), ids=BAD_KEYS)
def test_bad_verifier_keys(text):
    with pytest.raises(VerificationFailed):
        VerifierKey.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b"])
def test_names_that_cannot_sign(name):
    with pytest.raises(ConfigError):
        Signer(name, bytes(32))
