"""Which model versions run where, as the admission door saw it: kept when a workload is admitted, ended when it goes.

A row says that a workload was *admitted* with a version and has not been deleted since; whether its pods are up is the cluster's
to tell. The admission's own evidence record names the models too, so what stands here can be checked against the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from core.canonical import sha256
from core.errors import Conflict
from core.ids import uuid7
from core.names import ModelRef
from core.ports import Clock, Placed
from lineage.tables import DeploymentRow, ManifestRow, ModelRow
from storage.database import Database

MAX_ENVIRONMENT, MAX_WORKLOAD = 128, 256


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
        self,
        tenant: str,
        *,
        environment: str,
        workload: str,
        models: Sequence[ModelRef],
        actor: str,
        decision_id: str,
        replaces: bool = True,
    ) -> Placed:
        """From now on this workload runs exactly these versions (those that are registered). Conflict when it changes meanwhile.

        Without `replaces` what it ran before stays too: the API server may refuse the CREATE of a name that is taken, and what
        runs there must not get out of sight.
        """
        environment, workload = _within(environment, MAX_ENVIRONMENT), _within(workload, MAX_WORKLOAD)
        if not models:
            # Most requests name no model and meet none; a look takes no write lock.
            async with self._database.session(reading=True) as session:
                if not await _current(session, tenant, environment, workload):
                    return Placed((), ())
        now, mark = self._clock.now_unix(), uuid7()
        try:
            async with self._database.session() as session:
                current = await _current(session, tenant, environment, workload)
                wanted = await self._registered(session, tenant, models)
                moved = {model for model, _ in wanted}
                ended = tuple(
                    row for key, row in sorted(current.items()) if key not in wanted and (replaces or key[0] in moved)
                )
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
                return Placed(tuple(row.id for row in rows), ended, mark)
        except IntegrityError as error:
            raise Conflict(f"{environment}/{workload} was admitted by another request meanwhile") from error

    async def take_back(self, placed: Placed) -> None:
        """Makes it as it was: for an admission that could not be recorded and so never was.

        Where another request has been admitted for the same workload since, that one says what runs, and nothing is reopened.
        """
        if not (placed.started or placed.ended):
            return
        later = aliased(DeploymentRow)
        overtaken = exists().where(
            later.environment == DeploymentRow.environment, later.workload == DeploymentRow.workload, later.id > placed.mark
        )
        async with self._database.session() as session:
            mine = select(func.count()).where(DeploymentRow.id.in_(placed.started), DeploymentRow.ended_unix.is_(None))
            untouched = await session.scalar(mine) == len(placed.started)
            await session.execute(delete(DeploymentRow).where(DeploymentRow.id.in_(placed.started)))
            if untouched:
                reopen = update(DeploymentRow).where(DeploymentRow.id.in_(placed.ended), ~overtaken).values(ended_unix=None)
                await session.execute(reopen.execution_options(synchronize_session=False))

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


async def _current(session: AsyncSession, tenant: str, environment: str, workload: str) -> dict[tuple[str, str], str]:
    """(model, manifest) to row, of what this workload runs."""
    query = (
        select(DeploymentRow.id, DeploymentRow.model_id, DeploymentRow.manifest_digest)
        .join(ModelRow, ModelRow.id == DeploymentRow.model_id)
        .where(
            ModelRow.tenant == tenant, DeploymentRow.environment == environment,
            DeploymentRow.workload == workload, DeploymentRow.ended_unix.is_(None),
        )
    )  # fmt: skip
    return {(model, digest): row for row, model, digest in await session.execute(query)}


def _within(text: str, most: int) -> str:
    """`text`, or its beginning and a digest of the whole where it is too long: two long names never become one."""
    return text if len(text) <= most else f"{text[: most - 17]}~{sha256(text.encode()).removeprefix('sha256:')[:16]}"
