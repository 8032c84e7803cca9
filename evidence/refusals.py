"""Refusals without a decision (nobody authenticated, no such route, too many calls), at any door: counted, and recorded as sums
per second, so that a flood cannot fill the evidence log."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from core.errors import PortcullisError
from core.ports import Recorder
from core.record import Entry

log = logging.getLogger("portcullis.refusals")
EVERY_SECONDS = 1.0
ANONYMOUS = "anonymous"


class Refusals:
    """`add` counts; `run` writes one `access` record per kind, tenant and actor once a second; `flush` writes what is left."""

    def __init__(self, recorder: Recorder, tenant: str) -> None:
        self._recorder = recorder
        self._tenant = tenant
        self._counts: Counter[tuple[str, str, str, str]] = Counter()

    def add(self, code: str, route: str, *, tenant: str | None = None, actor: str = ANONYMOUS) -> None:
        self._counts[(code, route, tenant or self._tenant, actor)] += 1

    async def flush(self) -> None:
        """What cannot be recorded stays counted and is tried again."""
        pending, self._counts = self._counts, Counter()
        for key, count in list(pending.items()):
            code, route, tenant, actor = key
            details = {"action": "refused", "code": code, "route": route, "count": count}
            try:
                await self._recorder.event(Entry("access", actor, tenant, route, details=details))
            except PortcullisError as error:
                log.warning("refusals cannot be recorded yet: %s", error.message)
                self._counts.update(pending)
                return
            del pending[key]

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.flush()
