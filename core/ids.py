"""UUIDv7 (RFC 9562, 5.7): sortable by time, unique within a process even inside one millisecond."""

from __future__ import annotations

import os
import threading
import time
import uuid

_lock = threading.Lock()
_last = 0


def uuid7() -> str:
    """A new UUIDv7 as text; later calls in this process sort after earlier ones."""
    global _last  # noqa: PLW0603  (the monotonic counter RFC 9562 6.2 asks for)
    with _lock:
        # 48 bits of milliseconds and 12 of sub-millisecond fraction (RFC 9562 6.2, method 3).
        now = time.time_ns()
        stamp = (now // 1_000_000 << 12) | (now % 1_000_000 * 4096 // 1_000_000)
        stamp = max(stamp, _last + 1)
        _last = stamp
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64
    value |= 0b10 << 62 | int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    return str(uuid.UUID(int=value))
