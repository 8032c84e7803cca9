"""The RFC 6962 Merkle tree: hashes, proofs and their verification.

Verification lives in `evidence.verifier` (which auditors run alone); here it raises `core.errors.InvalidProof`. Proofs are made
from a function that gives the hash of a complete subtree, so that they come from tiles on a disk or from a list in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.errors import InvalidProof
from evidence import verifier
from evidence.verifier import EMPTY_ROOT, leaf_hash, node_hash

__all__ = [
    "EMPTY_ROOT",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "nodes_of",
    "root_hash",
    "verify_consistency",
    "verify_inclusion",
]  # fmt: skip

Nodes = Callable[[int, int], bytes]
"""`nodes(level, index)`: the hash of the complete subtree over leaves [index << level, (index + 1) << level)."""


def verify_inclusion(leaf_hash: bytes, index: int, tree_size: int, proof: list[bytes], root: bytes) -> None:
    """Returns when the leaf is in the tree; raises InvalidProof otherwise. RFC 6962 2.1.1, RFC 9162 2.1.3.2."""
    try:
        verifier.verify_inclusion(leaf_hash, index, tree_size, proof, root)
    except verifier.VerificationFailed as error:
        raise InvalidProof(str(error)) from error


def verify_consistency(size1: int, size2: int, proof: list[bytes], root1: bytes, root2: bytes) -> None:
    """Returns when the second tree extends the first; raises InvalidProof otherwise. RFC 6962 2.1.2, RFC 9162 2.1.4.2.

    `size1` 0: the proof must be empty and `root1` the root of the empty tree.
    """
    try:
        verifier.verify_consistency(size1, size2, proof, root1, root2)
    except verifier.VerificationFailed as error:
        raise InvalidProof(str(error)) from error


def _range_hash(start: int, end: int, nodes: Nodes) -> bytes:
    """MTH(D[start:end]) for a range that begins where a subtree does: the left part is the largest complete subtree."""
    size = end - start
    level = (size - 1).bit_length()
    if size == 1 << level:
        return nodes(level, start >> level)
    split = start + (1 << (level - 1))
    return node_hash(nodes(level - 1, start >> (level - 1)), _range_hash(split, end, nodes))


def root_hash(size: int, nodes: Nodes) -> bytes:
    """The root of the first `size` leaves."""
    return _range_hash(0, size, nodes) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """PATH(index, D[0:size]) of RFC 6962 2.1.1, from the leaf's sibling up. InvalidProof when there is no such leaf."""
    if not 0 <= index < size:
        raise InvalidProof(f"there is no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < split:
            path.append(_range_hash(split, end, nodes))
            end = split
        else:
            path.append(_range_hash(start, split, nodes))
            start = split
    return path[::-1]


def consistency_proof(size1: int, size2: int, nodes: Nodes) -> list[bytes]:
    """PROOF(size1, D[0:size2]) of RFC 6962 2.1.2; empty from size 0. InvalidProof when the first is the larger."""
    if not 0 <= size1 <= size2:
        raise InvalidProof(f"a tree of {size2} cannot extend one of {size1}")
    if size1 in (0, size2):
        return []
    path: list[bytes] = []
    start, end, known = 0, size2, True
    while end != size1:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if size1 <= split:
            path.append(_range_hash(split, end, nodes))
            end = split
        else:
            path.append(_range_hash(start, split, nodes))
            start, known = split, False
    if not known:
        path.append(_range_hash(start, end, nodes))
    return path[::-1]


def nodes_of(leaves: Sequence[bytes]) -> Nodes:
    """Subtree hashes over leaf hashes held in memory."""

    def nodes(level: int, index: int) -> bytes:
        if level == 0:
            return leaves[index]
        return node_hash(nodes(level - 1, 2 * index), nodes(level - 1, 2 * index + 1))

    return nodes
