"""What was decided already: decisions are pure, so the same input under the same bundle has the same decision.

The key is the digest of the whole canonical input, in which every fact stands (consent, revocations, the configuration's revision,
the time in whole seconds): whatever changes makes another key. An engine has one bundle, so its revision needs no place in the key.
Failures are never kept. Bounded: the decision that was asked for longest ago goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from core.decision import Decision, Domain
from core.ids import uuid7

MAX_DECISIONS = 10_000


class Memory:
    """`hits` and `misses` count since the start. Safe to share between threads."""

    def __init__(self, size: int = MAX_DECISIONS) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Domain, str], Decision] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def recall(self, domain: Domain, input_digest: str, duration_us: int) -> Decision | None:
        """The decision as one of its own: a new id, and how long it took this time."""
        key = (domain, input_digest)
        with self._lock:
            found = self._known.get(key)
            if found is None:
                self.misses += 1
                return None
            self._known.move_to_end(key)
            self.hits += 1
        return replace(found, decision_id=uuid7(), duration_us=duration_us)

    def keep(self, decision: Decision) -> None:
        with self._lock:
            self._known[decision.domain, decision.input_digest] = decision
            if len(self._known) > self._size:
                self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)
