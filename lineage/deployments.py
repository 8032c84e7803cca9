"""Which model versions run where, as the admission door saw it: kept when a workload is admitted, ended when it goes.

A row says that a workload was *admitted* with a version and has not been deleted since; whether its pods are up is the cluster's
to tell. The admission's own evidence record names the models too, so what stands here can be checked against the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import Conflict
from core.ids import uuid7
from core.names import ModelRef
from core.ports import Clock, Placed
from lineage.tables import DeploymentRow, ManifestRow, ModelRow
from storage.database import Database

MAX_TEXT = 256


@dataclass(frozen=True, slots=True)
class Deployment:
    """A workload in an environment (a namespace) that was admitted with a model version."""

    model: str
    environment: str
    workload: str
    manifest_digest: str
    decision_id: str
    started_unix: int
    ended_unix: int | None


class Deployments:
    """Implements `core.ports.Deployments`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def place(
        self, tenant: str, *, environment: str, workload: str, models: Sequence[ModelRef], actor: str, decision_id: str
    ) -> Placed:
        """From now on this workload runs exactly these versions (those that are registered). Conflict when it changes meanwhile."""
        now = self._clock.now_unix()
        environment, workload = environment[:MAX_TEXT], workload[:MAX_TEXT]
        try:
            async with self._database.session() as session:
                here = (
                    select(DeploymentRow.id, DeploymentRow.model_id, DeploymentRow.manifest_digest)
                    .join(ModelRow, ModelRow.id == DeploymentRow.model_id)
                    .where(
                        ModelRow.tenant == tenant, DeploymentRow.environment == environment,
                        DeploymentRow.workload == workload, DeploymentRow.ended_unix.is_(None),
                    )
                )  # fmt: skip
                current = {(model, digest): row for row, model, digest in await session.execute(here)}
                wanted = await self._registered(session, tenant, models)
                ended = tuple(row for key, row in sorted(current.items()) if key not in wanted)
                if ended:
                    await session.execute(update(DeploymentRow).where(DeploymentRow.id.in_(ended)).values(ended_unix=now))
                rows = [
                    DeploymentRow(
                        id=uuid7(), model_id=model, manifest_digest=digest, environment=environment, workload=workload,
                        actor=actor, record_id=decision_id, created_unix=now,
                    )
                    for model, digest in sorted(wanted - current.keys())
                ]  # fmt: skip
                session.add_all(rows)
                return Placed(tuple(row.id for row in rows), ended)
        except IntegrityError as error:
            raise Conflict(f"{environment}/{workload} was admitted by another request meanwhile") from error

    async def take_back(self, placed: Placed) -> None:
        """Makes it as it was: for an admission that could not be recorded and so never was."""
        if not (placed.started or placed.ended):
            return
        async with self._database.session() as session:
            await session.execute(delete(DeploymentRow).where(DeploymentRow.id.in_(placed.started)))
            await session.execute(update(DeploymentRow).where(DeploymentRow.id.in_(placed.ended)).values(ended_unix=None))

    async def list(self, tenant: str, ref: ModelRef | None = None, *, ended: bool = False) -> list[Deployment]:
        """The current ones of a tenant, or of one version; with `ended` also those that are over. Oldest first."""
        query = (
            select(DeploymentRow, ModelRow.name, ModelRow.version)
            .join(ModelRow, ModelRow.id == DeploymentRow.model_id)
            .where(ModelRow.tenant == tenant)
            .order_by(DeploymentRow.created_unix, DeploymentRow.id)
        )
        if ref is not None:
            query = query.where(ModelRow.name == ref.name, ModelRow.version == ref.version)
        if not ended:
            query = query.where(DeploymentRow.ended_unix.is_(None))
        async with self._database.session(reading=True) as session:
            found = (await session.execute(query)).all()
        return [
            Deployment(
                f"{name}@{version}", row.environment, row.workload, row.manifest_digest, row.record_id, row.created_unix,
                row.ended_unix,
            )
            for row, name, version in found
        ]  # fmt: skip

    @staticmethod
    async def _registered(session: AsyncSession, tenant: str, models: Sequence[ModelRef]) -> set[tuple[str, str]]:
        """(model, current manifest) of those that are registered; the manifest is empty while none is set."""
        found = set()
        for ref in models:
            query = (
                select(ModelRow.id, ManifestRow.digest)
                .outerjoin(ManifestRow, (ManifestRow.model_id == ModelRow.id) & ManifestRow.ended_unix.is_(None))
                .where(ModelRow.tenant == tenant, ModelRow.name == ref.name, ModelRow.version == ref.version)
            )
            for model, digest in await session.execute(query):
                found.add((model, digest or ""))
        return found
