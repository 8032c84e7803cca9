"""Requests per minute and key, by the generic cell rate algorithm (ITU-T I.371): one number per key, no windows to race."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """`remaining` calls could follow at once; `retry_after` is whole seconds, 0 when allowed."""

    allowed: bool
    limit: int
    remaining: int
    retry_after: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        found = [
            (b"x-ratelimit-limit-requests", str(self.limit).encode()),
            (b"x-ratelimit-remaining-requests", str(self.remaining).encode()),
        ]
        return found if self.allowed else [*found, (b"retry-after", str(self.retry_after).encode())]


class RequestLimiter:
    """In memory, for one process. A burst of a whole minute's calls is allowed; then they come back evenly."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrivals: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str, per_minute: int) -> Verdict:
        """Charges one call of `key`. A limit of 0 refuses everything."""
        if per_minute < 1:
            return Verdict(allowed=False, limit=0, remaining=0, retry_after=60)
        now = self._clock()
        interval = 60.0 / per_minute
        arrival = max(self._arrivals.get(key, now), now)
        ahead = arrival - now
        if ahead + interval > 60.0 + 1e-9:
            return Verdict(allowed=False, limit=per_minute, remaining=0, retry_after=max(1, math.ceil(ahead + interval - 60.0)))
        self._arrivals[key] = arrival + interval
        self._arrivals.move_to_end(key)
        while len(self._arrivals) > MAX_KEYS:
            self._arrivals.popitem(last=False)
        return Verdict(True, per_minute, int((60.0 - ahead - interval + 1e-9) / interval), 0)
