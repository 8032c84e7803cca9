"""When a server does not answer, asking it again and again makes every caller wait for the whole deadline. This stops asking.

After `failures` in a row nothing is asked for `pause` seconds: the caller is denied at once. Then one call asks, and as long as
it has no answer the others are still denied at once; an answer ends it, another failure starts the pause anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

FAILURES = 5
PAUSE_SECONDS = 2.0
LOG = logging.getLogger("portcullis.policies")


class Breaker:
    """Used inside one event loop. `paused` may be read from anywhere."""

    def __init__(
        self, shown: str, *, failures: int = FAILURES, pause: float = PAUSE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shown = shown
        self._most = failures
        self._pause = pause
        self._clock = clock
        self._failed = 0
        self._until = 0.0
        self._probing = False

    @property
    def paused(self) -> bool:
        return self._failed >= self._most

    def enter(self) -> bool:
        """Whether to ask now. Who got True says with `leave` how it went."""
        if not self.paused:
            return True
        if self._probing or self._clock() < self._until:
            return False
        self._probing = True
        return True

    def leave(self, answered: bool | None) -> None:
        """None: the call was given up, which says nothing about the server."""
        self._probing = False
        if answered is None:
            return
        was_paused = self.paused
        self._failed = 0 if answered else self._failed + 1
        if self.paused:
            self._until = self._clock() + self._pause
        if self.paused and not was_paused:
            LOG.error(
                "the OPA server at %s did not answer %s times in a row; it is not asked for a while", self._shown, self._most
            )
        if was_paused and answered:
            LOG.warning("the OPA server at %s answers again", self._shown)
