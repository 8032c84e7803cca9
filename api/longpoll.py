"""Answers that wait for something to change (long polling): how long was asked for, how many may wait, and when all waiting ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable, Iterator

MAX_SECONDS = 60
MAX_WAITING = 64
"""Requests that wait at once; well below the open requests that `api serve` takes, so that nobody else has to wait for them."""
LOOK_SECONDS = 0.5
_WORD = re.compile(r'"?([0-9]{1,9})"?')
_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"|\*')


def wait_asked(prefer: Iterable[str]) -> int:
    """The seconds that the headers `Prefer` ask to wait, at most MAX_SECONDS; 0 when they ask for none.

    OPA writes `modes=snapshot,delta;wait=20`, so commas and semicolons are read alike. Of several the first counts, and what cannot
    be read is as if it was not sent: RFC 7240, section 2, has a server ignore it and not refuse.
    """
    pairs = (part.partition("=") for part in re.split("[,;]", ",".join(prefer)))
    word = next((value.strip() for name, _, value in pairs if name.strip().lower() == "wait"), "")
    found = _WORD.fullmatch(word)
    return min(int(found[1]), MAX_SECONDS) if found else 0


def names(if_none_match: Iterable[str], tag: str) -> bool:
    """Whether the headers `If-None-Match` name the entity tag `tag` (RFC 9110, section 13.1.2: weak comparison, `*` names any)."""
    return any(found[0] == "*" or found[1] == tag for found in _TAG.finditer(",".join(if_none_match)))


class Waits:
    """The requests that wait. `run` goes alongside the server: when it is cancelled, all waiting ends and none begins."""

    def __init__(self, most: int = MAX_WAITING) -> None:
        self.waiting = 0
        self._most = most
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        try:
            await self._stopped.wait()
        finally:
            self._stopped.set()

    @contextlib.contextmanager
    def place(self, seconds: int) -> Iterator[int]:
        """How long one more may wait: `seconds`, or 0 when too many do already."""
        if not seconds or self.waiting >= self._most or self._stopped.is_set():
            yield 0
            return
        self.waiting += 1
        try:
            yield seconds
        finally:
            self.waiting -= 1

    async def pause(self, end: float) -> bool:
        """Half a second, or less when `end` (in the loop's time) is nearer. False, at once, when there is nothing left to wait for."""
        left = end - asyncio.get_running_loop().time()
        if left <= 0 or self._stopped.is_set():
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), min(left, LOOK_SECONDS))
        return True
