"""What every change of lineage goes through: the evidence first, then the row. No record, no action.

A change is checked against what is stored, recorded, then written. A writer that loses a race after its record stood (a
unique index refuses it) gets Conflict; the log then holds an attempt more than the tables, never one fewer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import Conflict
from core.ports import Clock, Commitments, Recorder
from core.principal import Principal
from core.record import Entry, RecordKind
from storage.database import Database


class Ledger:
    def __init__(self, database: Database, *, recorder: Recorder, commitments: Commitments, clock: Clock) -> None:
        self.database = database
        self.recorder = recorder
        self.commitments = commitments
        self.clock = clock

    async def actor(self, principal: Principal) -> str:
        """The reference under which `principal` appears in rows and records."""
        return await self.commitments.ref(principal.tenant, principal.id)

    async def record(
        self,
        kind: RecordKind,
        principal: Principal,
        subject: str,
        *,
        digests: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> tuple[str, str]:
        """Appends one event; `(actor, record id)`. Raises EvidenceUnavailable, and then nothing may be changed."""
        actor = await self.actor(principal)
        entry = Entry(
            kind=kind,
            actor=actor,
            tenant=principal.tenant,
            subject=subject,
            digests=dict(digests or {}),
            details=dict(details or {}),
        )
        return actor, await self.recorder.event(entry)

    @asynccontextmanager
    async def writing(self, what: str) -> AsyncIterator[AsyncSession]:
        """A transaction in which a unique index that objects means somebody else was quicker: Conflict."""
        try:
            async with self.database.session() as session:
                yield session
        except IntegrityError as error:
            raise Conflict(f"{what} changed meanwhile; look at it again", where=what) from error

    def reading(self) -> Any:
        """A transaction that only reads."""
        return self.database.session(reading=True)
