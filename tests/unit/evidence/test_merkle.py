"""RFC 6962 proofs: nobody's vectors but their own, every size, every bit."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidProof
from evidence.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    nodes_of,
    root_hash,
    verify_consistency,
    verify_inclusion,
)
from tests.conftest import SHARED

LEAVES = [leaf_hash(str(number).encode()) for number in range(210)]
NODES = nodes_of(LEAVES)
VECTORS = SHARED / "data" / "merkle" / "inclusion"


def root(size: int) -> bytes:
    return root_hash(size, NODES)


def test_foreign_inclusion_vectors():
    if not VECTORS.is_dir():
        pytest.skip(f"the RFC 6962 vectors are not there ({VECTORS})")
    cases = sorted(VECTORS.rglob("*.json"))
    assert len(cases) == 98
    wrong = []
    for path in cases:
        case = json.loads(path.read_text())

        def data(text: str | None) -> bytes:
            return base64.b64decode(text or "")

        try:
            verify_inclusion(
                data(case["leafHash"]),
                case["leafIdx"],
                case["treeSize"],
                [data(p) for p in case["proof"] or []],
                data(case["root"]),
            )
            failed = False
        except InvalidProof:
            failed = True
        if failed != case["wantErr"]:
            wrong.append(str(path.relative_to(VECTORS)))
    assert wrong == []


def test_known_roots():
    """RFC 6962's hashes over the leaves that certificate-transparency's own tests use."""
    leaves = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        bytes(range(0x50, 0x58)),
        bytes(range(0x60, 0x70)),
    ]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    nodes = nodes_of([leaf_hash(leaf) for leaf in leaves])
    assert {size: root_hash(size, nodes).hex() for size in roots} == roots


@given(st.data())
def test_every_leaf_of_every_tree(data):
    size = data.draw(st.integers(1, 200))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, NODES)
    verify_inclusion(LEAVES[index], index, size, proof, root(size))
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        with pytest.raises(InvalidProof):
            verify_inclusion(LEAVES[index], other, size, proof, root(size))


@given(st.data())
def test_a_flipped_bit_fails_inclusion(data):
    size = data.draw(st.integers(1, 200))
    index = data.draw(st.integers(0, size - 1))
    parts = [LEAVES[index], root(size), *inclusion_proof(index, size, NODES)]
    which = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, 255))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    with pytest.raises(InvalidProof):
        verify_inclusion(parts[0], index, size, parts[2:], parts[1])


@given(st.data())
def test_consistency_of_any_two_sizes_and_a_flipped_bit(data):
    size2 = data.draw(st.integers(1, 200))
    size1 = data.draw(st.integers(0, size2))
    proof = consistency_proof(size1, size2, NODES)
    verify_consistency(size1, size2, proof, root(size1), root(size2))
    parts = [root(size1), root(size2), *proof]
    which = data.draw(st.integers(0, len(parts) - 1))
    if size1 == 0 and which == 1:
        return  # every tree extends the empty one; nothing binds the second root to it
    bit = data.draw(st.integers(0, 255))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    with pytest.raises(InvalidProof):
        verify_consistency(size1, size2, parts[2:], parts[0], parts[1])


BAD_CONSISTENCY = {
    "size 0 with a made-up root": (0, 5, [], b"\x01" * 32, root(5)),
    "size 0 with a proof": (0, 5, [LEAVES[0]], EMPTY_ROOT, root(5)),
    "empty proof": (3, 5, [], root(3), root(5)),
    "empty proof of a power of two": (4, 5, [], root(4), root(5)),
    "shrinking": (5, 3, [], root(5), root(3)),
    "negative": (-1, 3, [], EMPTY_ROOT, root(3)),
    "same size, other root": (5, 5, [], root(5), root(4)),
    "same size with a proof": (5, 5, [root(1)], root(5), root(5)),
    "too long": (3, 5, [*consistency_proof(3, 5, NODES), LEAVES[0]], root(3), root(5)),
    "too short": (3, 5, consistency_proof(3, 5, NODES)[:-1], root(3), root(5)),
    "short hash": (3, 5, [b"x", *consistency_proof(3, 5, NODES)[1:]], root(3), root(5)),
    "both empty, made-up root": (0, 0, [], EMPTY_ROOT, root(3)),
}


@pytest.mark.parametrize("case", BAD_CONSISTENCY.values(), ids=BAD_CONSISTENCY)
def test_bad_consistency(case):
    with pytest.raises(InvalidProof):
        verify_consistency(*case)


def test_no_proof_for_what_is_not_there():
    with pytest.raises(InvalidProof):
        inclusion_proof(5, 5, NODES)
    with pytest.raises(InvalidProof):
        consistency_proof(6, 5, NODES)
