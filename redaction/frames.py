"""Messages between the gateway and its redactor: JSON behind its length (4 bytes, big-endian), over pipes."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

LENGTH = 4
MAX_FRAME = 16 * 1024 * 1024


class FrameTooLarge(ValueError):
    """More than MAX_FRAME bytes."""


def encode(value: Any) -> bytes:
    """FrameTooLarge beyond MAX_FRAME bytes; ValueError, TypeError or RecursionError for what JSON cannot carry (NaN, a lone
    surrogate, an object without end)."""
    data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    if len(data) > MAX_FRAME:
        raise FrameTooLarge("the frame is too large")
    return len(data).to_bytes(LENGTH, "big") + data


def length_of(prefix: bytes) -> int:
    """FrameTooLarge beyond MAX_FRAME: whatever speaks there is not our redactor."""
    size = int.from_bytes(prefix, "big")
    if size > MAX_FRAME:
        raise FrameTooLarge("the frame is too large")
    return size


def read(source: BinaryIO) -> Any:
    """The next message; None at the end. ValueError when it ends inside one."""
    prefix = source.read(LENGTH)
    if not prefix:
        return None
    data = source.read(length_of(prefix)) if len(prefix) == LENGTH else b""
    if len(prefix) < LENGTH or len(data) < length_of(prefix):
        raise ValueError("the stream ends inside a frame")
    return json.loads(data)
