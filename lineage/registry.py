"""Model versions as facts for a decision: read anew each time, so that a withdrawal counts from the next decision on."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.inputs import ApprovalFact, CardFact, DatasetFact, ModelFact
from core.names import ModelRef
from lineage import cards
from lineage.tables import ApprovalRow, CardRow, ConsentRow, DatasetRow, ManifestRow, ModelDatasetRow, ModelRow
from storage.database import Database


class Registry:
    """`core.ports.ModelRegistry`. Unavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def model(self, tenant: str, ref: ModelRef) -> ModelFact | None:
        """Everything that decides whether this version may be used; None when it is not registered in this tenant."""
        query = (
            select(ModelRow, ManifestRow.digest, CardRow.card)
            .outerjoin(ManifestRow, (ManifestRow.model_id == ModelRow.id) & ManifestRow.ended_unix.is_(None))
            .outerjoin(CardRow, (CardRow.model_id == ModelRow.id) & CardRow.ended_unix.is_(None))
            .where(ModelRow.tenant == tenant, ModelRow.name == ref.name, ModelRow.version == ref.version)
        )
        async with self._database.session(reading=True) as session:
            found = (await session.execute(query)).one_or_none()
            if found is None:
                return None
            row, manifest, card = found
            return ModelFact(
                name=row.name,
                version=row.version,
                tenant=row.tenant,
                author=row.author,
                manifest_digest=manifest,
                card=None if card is None else _card(card),
                approvals=await _approvals(session, row.id),
                datasets=await _datasets(session, row.id),
                revoked=row.ended_unix is not None,
            )

    async def registered_digest(self, manifest_digest: str) -> ModelRef | None:
        """The version whose current sealed manifest has this digest; None when no version, or more than one tenant's, has it."""
        query = (
            select(ModelRow.name, ModelRow.version)
            .join(ManifestRow, (ManifestRow.model_id == ModelRow.id) & ManifestRow.ended_unix.is_(None))
            .where(ManifestRow.digest == manifest_digest)
        )
        async with self._database.session(reading=True) as session:
            rows = (await session.execute(query)).all()
        return ModelRef(rows[0].name, rows[0].version) if len(rows) == 1 else None


def _card(card: dict[str, object]) -> CardFact:
    missing = cards.missing(card)
    purposes = card.get(cards.PURPOSES)
    return CardFact(complete=not missing, missing=missing, purposes=list(purposes) if isinstance(purposes, list) else [])


async def _approvals(session: AsyncSession, model_id: str) -> list[ApprovalFact]:
    query = (
        select(ApprovalRow)
        .where(ApprovalRow.model_id == model_id, ApprovalRow.ended_unix.is_(None))
        .order_by(ApprovalRow.created_unix, ApprovalRow.person)
    )
    return [
        ApprovalFact(person=row.person, manifest_digest=row.manifest_digest, approved_at_unix=row.created_unix)
        for row in await session.scalars(query)
    ]


async def _datasets(session: AsyncSession, model_id: str) -> list[DatasetFact]:
    query = (
        select(DatasetRow, ConsentRow.state)
        .join(ModelDatasetRow, ModelDatasetRow.dataset_id == DatasetRow.id)
        .join(ConsentRow, (ConsentRow.dataset_id == DatasetRow.id) & ConsentRow.ended_unix.is_(None))
        .where(ModelDatasetRow.model_id == model_id, ModelDatasetRow.ended_unix.is_(None))
        .order_by(DatasetRow.name, DatasetRow.version)
    )
    return [
        DatasetFact.model_validate(
            {"name": row.name, "version": row.version, "licence": row.licence, "consent": state, "purposes": list(row.purposes)}
        )
        for row, state in await session.execute(query)
    ]
