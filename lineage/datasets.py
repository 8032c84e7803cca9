"""Datasets, their licence, purposes and legal basis; withdrawing consent reaches every decision from the next one on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import Conflict, NotFound
from core.ids import uuid7
from core.names import ModelRef, check_digest
from core.principal import Principal
from lineage import fields
from lineage.ledger import Ledger
from lineage.tables import ConsentRow, DatasetRow, ModelDatasetRow, ModelRow

Basis = Literal["given", "not_required"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """`consent` is `given`, `not_required` or `withdrawn`; `models` were trained on it."""

    name: str
    version: str
    licence: str | None
    purposes: tuple[str, ...]
    origin: str
    digest: str | None
    consent: str
    models: tuple[str, ...] = ()


class Datasets:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def register(
        self,
        ref: ModelRef,
        *,
        by: Principal,
        origin: str,
        basis: Basis,
        licence: str | None = None,
        purposes: tuple[str, ...] = (),
        digest: str | None = None,
    ) -> None:
        """Registers a version of a dataset. Conflict when it exists, BadInput for text that cannot be kept."""
        origin = fields.text(origin, "origin")
        licence = None if licence is None else fields.line(licence, "licence", max_length=128)
        wanted = fields.names(purposes, "purposes")
        digest = None if digest is None else check_digest(digest)
        async with self._ledger.reading() as session:
            if await _row(session, by.tenant, ref) is not None:
                raise Conflict(f"the dataset {ref} is registered already")
        details = {"action": "register", "licence": licence or "", "consent": basis}
        actor, record = await self._ledger.record("dataset", by, f"dataset/{ref}", details=details)
        now = self._ledger.clock.now_unix()
        row = DatasetRow(
            id=uuid7(), tenant=by.tenant, name=ref.name, version=ref.version, licence=licence, purposes=wanted, origin=origin,
            digest=digest, author=actor, record_id=record, created_unix=now,
        )  # fmt: skip
        consent = ConsentRow(
            id=uuid7(), dataset_id=row.id, state=basis, reason="", actor=actor, record_id=record, created_unix=now
        )
        async with self._ledger.writing(f"dataset {ref}") as session:
            session.add(row)
            await session.flush()
            session.add(consent)

    async def withdraw(self, ref: ModelRef, *, by: Principal, reason: str) -> tuple[str, ...]:
        """Records that consent is withdrawn; gives the model versions that may not be used any more.

        NotFound, or Conflict when it is withdrawn already.
        """
        reason = fields.text(reason, "reason", max_length=1000)
        found = await self.show(by.tenant, ref)
        if found.consent == "withdrawn":
            raise Conflict(f"the consent for {ref} is withdrawn already")
        details = {"action": "withdraw", "models": list(found.models)}
        actor, record = await self._ledger.record("consent", by, f"dataset/{ref}", details=details)
        now = self._ledger.clock.now_unix()
        async with self._ledger.writing(f"dataset {ref}") as session:
            row = await _row(session, by.tenant, ref)
            if row is None:
                raise NotFound(f"there is no dataset {ref}")
            current = (ConsentRow.dataset_id == row.id) & ConsentRow.ended_unix.is_(None)
            await session.execute(update(ConsentRow).where(current).values(ended_unix=now))
            session.add(
                ConsentRow(
                    id=uuid7(),
                    dataset_id=row.id,
                    state="withdrawn",
                    reason=reason,
                    actor=actor,
                    record_id=record,
                    created_unix=now,
                )
            )
        return found.models

    async def show(self, tenant: str, ref: ModelRef) -> Dataset:
        """NotFound for what is not registered in this tenant."""
        for found in await self._read(tenant, ref):
            return found
        raise NotFound(f"there is no dataset {ref}")

    async def all(self, tenant: str) -> list[Dataset]:
        return await self._read(tenant, None)

    async def _read(self, tenant: str, ref: ModelRef | None) -> list[Dataset]:
        query = (
            select(DatasetRow, ConsentRow.state)
            .join(ConsentRow, (ConsentRow.dataset_id == DatasetRow.id) & ConsentRow.ended_unix.is_(None))
            .where(DatasetRow.tenant == tenant)
            .order_by(DatasetRow.name, DatasetRow.version)
        )
        if ref is not None:
            query = query.where(DatasetRow.name == ref.name, DatasetRow.version == ref.version)
        trained = (
            select(ModelDatasetRow.dataset_id, ModelRow.name, ModelRow.version)
            .join(ModelRow, ModelRow.id == ModelDatasetRow.model_id)
            .where(ModelRow.tenant == tenant, ModelDatasetRow.ended_unix.is_(None))
            .order_by(ModelRow.name, ModelRow.version)
        )
        async with self._ledger.reading() as session:
            rows = (await session.execute(query)).all()
            models: dict[str, list[str]] = {}
            for dataset_id, name, version in await session.execute(trained):
                models.setdefault(dataset_id, []).append(f"{name}@{version}")
        return [
            Dataset(r.name, r.version, r.licence, tuple(r.purposes), r.origin, r.digest, state, tuple(models.get(r.id, ())))
            for r, state in rows
        ]


async def _row(session: AsyncSession, tenant: str, ref: ModelRef) -> DatasetRow | None:
    query = select(DatasetRow).where(
        DatasetRow.tenant == tenant, DatasetRow.name == ref.name, DatasetRow.version == ref.version
    )
    return (await session.scalars(query)).one_or_none()
