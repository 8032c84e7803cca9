"""Model versions: registration, the sealed manifest they stand for, their card, their end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.canonical import digest
from core.errors import Conflict, NotFound
from core.ids import uuid7
from core.names import ModelRef, check_digest
from core.principal import Principal
from lineage import cards, fields
from lineage.ledger import Ledger
from lineage.tables import CardRow, DatasetRow, ManifestRow, ModelDatasetRow, ModelRow


class Models:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def register(self, ref: ModelRef, *, by: Principal, datasets: Sequence[ModelRef], team: str | None = None) -> None:
        """Registers a version trained on these datasets; `by` is its author, who can never approve it.

        Conflict when it exists, NotFound for a dataset that is not registered in this tenant.
        """
        team = None if team is None else fields.line(team, "team", max_length=128)
        async with self._ledger.reading() as session:
            if await _find(session, by.tenant, ref) is not None:
                raise Conflict(f"{ref} is registered already")
            trained_on = [await _dataset_id(session, by.tenant, dataset) for dataset in dict.fromkeys(datasets)]
        details = {"action": "register", "datasets": sorted(str(dataset) for dataset in set(datasets))}
        actor, record = await self._ledger.record("lineage", by, str(ref), details=details)
        now = self._ledger.clock.now_unix()
        row = ModelRow(
            id=uuid7(), tenant=by.tenant, name=ref.name, version=ref.version, team=team, author=actor, record_id=record,
            created_unix=now,
        )  # fmt: skip
        async with self._ledger.writing(str(ref)) as session:
            session.add(row)
            await session.flush()
            session.add_all(ModelDatasetRow(model_id=row.id, dataset_id=dataset, created_unix=now) for dataset in trained_on)

    async def set_manifest(self, ref: ModelRef, manifest_digest: str, *, by: Principal) -> None:
        """Says which sealed manifest the version stands for. Approvals bind a digest, so those of an earlier one count no more.

        Conflict when the digest stands for another version, or stood for this one before.
        """
        check_digest(manifest_digest, "manifest digest")
        await self._existing(by.tenant, ref)
        details = {"action": "manifest"}
        digests = {"manifest": manifest_digest}
        actor, record = await self._ledger.record("lineage", by, str(ref), digests=digests, details=details)
        now = self._ledger.clock.now_unix()
        async with self._ledger.writing(str(ref)) as session:
            row = await _needed(session, by.tenant, ref)
            current = (ManifestRow.model_id == row.id) & ManifestRow.ended_unix.is_(None)
            await session.execute(update(ManifestRow).where(current).values(ended_unix=now))
            session.add(
                ManifestRow(
                    id=uuid7(), tenant=by.tenant, model_id=row.id, digest=manifest_digest, actor=actor, record_id=record,
                    created_unix=now,
                )
            )  # fmt: skip

    async def set_card(self, ref: ModelRef, value: Any, *, by: Principal) -> list[str]:
        """Keeps a new version of the card; gives the mandatory fields that are still missing. BadInput for an unknown field."""
        card = cards.read_card(value)
        await self._existing(by.tenant, ref)
        kept = digest(card)
        details = {"action": "card", "missing": cards.missing(card)}
        actor, record = await self._ledger.record("card", by, str(ref), digests={"card": kept}, details=details)
        now = self._ledger.clock.now_unix()
        async with self._ledger.writing(str(ref)) as session:
            row = await _needed(session, by.tenant, ref)
            newest = await session.scalar(select(func.max(CardRow.number)).where(CardRow.model_id == row.id))
            current = (CardRow.model_id == row.id) & CardRow.ended_unix.is_(None)
            await session.execute(update(CardRow).where(current).values(ended_unix=now))
            session.add(
                CardRow(
                    id=uuid7(), model_id=row.id, number=(newest or 0) + 1, card=card, digest=kept, actor=actor,
                    record_id=record, created_unix=now,
                )
            )  # fmt: skip
        return cards.missing(card)

    async def revoke(self, ref: ModelRef, *, by: Principal, reason: str) -> None:
        """Ends a version for good. Conflict when it is revoked already."""
        reason = fields.text(reason, "reason", max_length=1000)
        if (await self._existing(by.tenant, ref)).ended_unix is not None:
            raise Conflict(f"{ref} is revoked already")
        actor, _record = await self._ledger.record("revocation", by, str(ref), details={"action": "revoke"})
        now = self._ledger.clock.now_unix()
        async with self._ledger.writing(str(ref)) as session:
            row = await _needed(session, by.tenant, ref)
            row.ended_unix, row.ended_reason, row.ended_by = now, reason, actor

    async def all(self, tenant: str) -> list[ModelRef]:
        query = select(ModelRow).where(ModelRow.tenant == tenant).order_by(ModelRow.name, ModelRow.version)
        async with self._ledger.reading() as session:
            return [ModelRef(row.name, row.version) for row in await session.scalars(query)]

    async def _existing(self, tenant: str, ref: ModelRef) -> ModelRow:
        async with self._ledger.reading() as session:
            return await _needed(session, tenant, ref)


async def _find(session: AsyncSession, tenant: str, ref: ModelRef) -> ModelRow | None:
    query = select(ModelRow).where(ModelRow.tenant == tenant, ModelRow.name == ref.name, ModelRow.version == ref.version)
    return (await session.scalars(query)).one_or_none()


async def _needed(session: AsyncSession, tenant: str, ref: ModelRef) -> ModelRow:
    row = await _find(session, tenant, ref)
    if row is None:
        raise NotFound(f"{ref} is not registered")
    return row


async def _dataset_id(session: AsyncSession, tenant: str, ref: ModelRef) -> str:
    query = select(DatasetRow.id).where(
        DatasetRow.tenant == tenant, DatasetRow.name == ref.name, DatasetRow.version == ref.version
    )
    found = await session.scalar(query)
    if found is None:
        raise NotFound(f"the dataset {ref} is not registered")
    return found
