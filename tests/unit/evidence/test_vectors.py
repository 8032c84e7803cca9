"""What version 1 wrote must verify for ever."""

from __future__ import annotations

import base64
import math
import struct

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from evidence.merkle import verify_inclusion
from evidence.notes import VerifierKey, open_checkpoint
from evidence.verifier import VerificationFailed, canonical, leaf_hash, parse_canonical, verify
from tests.conftest import ROOT

VECTORS = ROOT / "tests" / "vectors" / "v1" / "evidence"
KEY = (VECTORS / "log.pub").read_text()


def test_package():
    result = verify(VECTORS / "package.zip", KEY, earlier=(VECTORS / "earlier.checkpoint").read_bytes())
    assert result.verified
    assert (result.tenant, result.records, result.withheld, result.checkpoint.size) == ("acme", 11, 1, 12)
    assert (result.inputs, result.bundles, result.earlier_size) == (11, 1, 5)


def test_package_of_another_key():
    with pytest.raises(VerificationFailed, match="not the pinned one"):
        verify(VECTORS / "package-other-key.zip", KEY)
    assert not verify(VECTORS / "package-other-key.zip", None).verified


def test_record_and_proof():
    head, _, note = (VECTORS / "record.tlog-proof").read_text().partition("\n\n")
    _, index, *hashes = head.split("\n")
    checkpoint = open_checkpoint(note.encode(), VerifierKey.parse(KEY))
    leaf = leaf_hash((VECTORS / "record.json").read_bytes())
    proof = [base64.b64decode(value) for value in hashes]
    verify_inclusion(leaf, int(index.removeprefix("index ")), checkpoint.size, proof, checkpoint.root)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_the_verifiers_canonical_json_is_that_of_the_library(value):
    assert canonical(value) == rfc8785.dumps(value)
    assert canonical(parse_canonical(canonical(value), "x")) == canonical(value)


@given(st.integers(0, 2**64 - 1))
def test_every_double(bits):
    (value,) = struct.unpack(">d", struct.pack(">Q", bits))
    if math.isfinite(value):
        assert canonical(value) == rfc8785.dumps(value)


NOT_CANONICAL = {
    "white space": b'{"a": 1}',
    "order": b'{"b":1,"a":1}',
    "duplicate": b'{"a":1,"a":1}',
    "float integer": b"1.0",
    "exponent": b"1e0",
    "escape": b'"\\u0061"',
    "surrogate": b'"\\ud800"',
    "NaN": b"NaN",
    "an integer that no double is": b"9007199254740993",
    "an integer too large for a double": b"1" + b"0" * 400,
    "deep": b"[" * 100_000,
    "trailing": b"1 ",
    "not UTF-8": b'"\xff"',
    "empty": b"",
    "many digits": b"1" * 5000,
    "negative zero": b"-0",
}  # fmt: skip


@pytest.mark.parametrize("data", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_not_canonical(data):
    with pytest.raises(VerificationFailed):
        parse_canonical(data, "x")
