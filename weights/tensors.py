"""The header of a safetensors file, read strictly: what a lenient reader accepts can hide or swap weights.

Format: 8 bytes of length (little-endian), that much JSON, then the tensors' bytes without holes (huggingface/safetensors).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Protocol

from core.errors import BadInput
from core.jsonread import loads_object

MAX_HEADER_BYTES = 32 * 1024 * 1024
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Header:
    """How many tensors and parameters there are, how many bytes say so (the length's own eight included), and their digest."""

    tensors: int
    parameters: int
    size: int
    digest: str


def read_header(source: Source, size: int) -> Header:
    """The checked header of a file of `size` bytes. BadInput for a length beyond the file, duplicate names, unknown types,
    shapes that do not fill their bytes, and for holes or overlaps."""
    prefix = source.read(8)
    if len(prefix) < 8:
        raise BadInput("is no safetensors file: too short for its length", where="header")
    length = int.from_bytes(prefix, "little")
    if length > min(size - 8, MAX_HEADER_BYTES):
        raise BadInput(f"says that its header has {length} bytes; at most {min(size - 8, MAX_HEADER_BYTES)} are there or read")
    data = source.read(length)
    document = loads_object(data, max_bytes=MAX_HEADER_BYTES, max_depth=8)
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadInput("must map texts to texts", where="__metadata__")
    spans, parameters = [], 0
    for name, entry in document.items():
        start, end, count = _tensor(name, entry)
        spans.append((start, end))
        parameters += count
    at = 0
    for start, end in sorted(spans):
        if start != at:
            raise BadInput(f"tensors leave a hole or overlap at byte {at}", where="data_offsets")
        at = end
    if at != size - 8 - length:
        raise BadInput(f"tensors fill {at} bytes, the file has {size - 8 - length}", where="data_offsets")
    return Header(len(spans), parameters, 8 + length, "sha256:" + hashlib.sha256(prefix + data).hexdigest())


def _tensor(name: str, entry: Any) -> tuple[int, int, int]:
    where = name[:120]
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadInput("a tensor has exactly dtype, shape and data_offsets", where=where)
    shape, offsets = entry["shape"], entry["data_offsets"]
    bits = BITS.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if bits is None:
        raise BadInput("has an unknown dtype", where=where)
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise BadInput("shape and data_offsets are lists of whole numbers, the latter of two", where=where)
    count = math.prod(shape)
    if (offsets[1] - offsets[0]) * 8 != count * bits:
        raise BadInput("its shape does not fill its bytes", where=where)
    return offsets[0], offsets[1], count


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**53 for item in value
    )
