"""The quota ledger: what each team holds, object by object, changed by compare-and-swap so that replicas cannot overshoot.

The order at the door (DESIGN.md): read the standing with the account's version → decide → `reserve`, which writes only if
the account still has that version → record → answer. When recording fails, `undo` puts back what stood before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from admission.standing import Change, Holding, ObjectKey, Standing
from admission.tables import AccountRow, ChargeRow, OwnerRow, RequestRow
from core.errors import Conflict
from core.ports import Clock
from storage.database import Database

KEEP_ANSWERS_SECONDS = 3600
"""How long a request's answer is kept for a retry. The API server gives up on a webhook after 30 seconds at most."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A change that was made, with what is needed to undo it."""

    key: ObjectKey
    before: Holding | None
    after: Holding | None
    marks: tuple[str, ...]
    """Owners' uids that were added with the row, or taken away with it."""
    request_uid: str


@dataclass(frozen=True, slots=True)
class Account:
    team: str
    used_shares: int
    version: int


class QuotaLedger:
    """The ledger of one installation, in its database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def answered(self, uid: str, body_digest: str) -> dict[str, Any] | None:
        """The answer that this request got before; None when it is new. Conflict when the uid came with another body."""
        async with self._database.session(reading=True) as session:
            row = await session.get(RequestRow, uid)
        if row is None:
            return None
        if row.body_digest != body_digest:
            raise Conflict("a request with this uid was answered before, and it was another one", where="request.uid")
        return dict(row.answer)

    async def settle(self, uid: str, body_digest: str, answer: Mapping[str, Any]) -> None:
        """Keeps the answer for a retry, and forgets those that nobody can ask for any more."""
        now = self._clock.now_unix()
        try:
            async with self._database.session() as session:
                session.add(RequestRow(uid=uid, body_digest=body_digest, answer=dict(answer), answered_at_unix=now))
                await session.execute(delete(RequestRow).where(RequestRow.answered_at_unix < now - KEEP_ANSWERS_SECONDS))
        except IntegrityError as error:
            raise Conflict("the same request was answered meanwhile", where="request.uid") from error

    async def holding(self, key: ObjectKey) -> Holding | None:
        """What one object holds now."""
        async with self._database.session(reading=True) as session:
            return _holding(await session.get(ChargeRow, _identity(key)))

    async def standing(self, tenant: str, team: str, key: ObjectKey, *, uid: str | None, owner_uid: str | None) -> Standing:
        """The team's account, the object's own holding, and whether the object's owner is paid for in its namespace."""
        async with self._database.session(reading=True) as session:
            account = await session.get(AccountRow, (tenant, team))
            own = _holding(await session.get(ChargeRow, _identity(key)))
            owner = await session.get(OwnerRow, owner_uid) if owner_uid else None
            if owner is not None and owner.namespace != key.namespace:
                owner = None
            maker = await session.get(ChargeRow, (owner.namespace, owner.kind, owner.name)) if owner else None
            mark = await session.get(OwnerRow, uid) if uid else None
        return Standing(
            version=account.version if account else 0,
            used_shares=account.used_shares if account else 0,
            own=own,
            owner_paid=maker is not None and maker.pod_shares > 0,
            marked=mark is not None,
            owner_known=owner is not None,
        )

    async def reserve(
        self, key: ObjectKey, change: Change, standing: Standing, *, tenant: str, team: str, request_uid: str
    ) -> Reservation | None:
        """Writes the change when the account and the object are still as `standing` says; None when nothing changes.

        Raises Conflict when either moved meanwhile: gather and decide again. A row that goes is not compared with the
        account's version: giving back is right whatever the others hold.
        """
        own = standing.own
        if change.after is None and own is None:
            return None
        after = None
        if change.after is not None:
            after = Holding(tenant, team, change.after, change.pod_shares, request_uid, self._clock.now_unix())
            same = own and (own.tenant, own.team, own.shares, own.pod_shares) == (tenant, team, after.shares, after.pod_shares)
            if same and (change.mark is None or standing.marked):
                return None
        marks = (change.mark,) if change.mark and not standing.marked else ()
        made = Reservation(key, own, after, marks, request_uid)
        try:
            async with self._database.session() as session:
                return await _swap(session, made, standing.version)
        except IntegrityError as error:
            raise Conflict("the team's account was made meanwhile") from error

    async def undo(self, made: Reservation) -> None:
        """Puts back what stood before, unless the object was changed again or the request was answered after all."""
        async with self._database.session() as session:
            row = await session.get(ChargeRow, _identity(made.key), with_for_update=True)
            if await session.get(RequestRow, made.request_uid) is not None or _holding(row) != made.after:
                return
            if made.after is None:
                session.add_all(_owner(made.key, uid) for uid in made.marks)
            elif made.marks:
                await session.execute(delete(OwnerRow).where(OwnerRow.uid.in_(made.marks)))
            await _write(session, Reservation(made.key, made.after, made.before, (), made.request_uid), row)

    async def accounts(self, tenant: str) -> list[Account]:
        """Every team's account, for `quota show`."""
        async with self._database.session(reading=True) as session:
            rows = await session.scalars(select(AccountRow).where(AccountRow.tenant == tenant).order_by(AccountRow.team))
            return [Account(row.team, row.used_shares, row.version) for row in rows]

    async def holdings(self, tenant: str, team: str | None = None) -> list[tuple[ObjectKey, Holding]]:
        """Every object that is charged, largest first, for `quota show`."""
        query = select(ChargeRow).where(ChargeRow.tenant == tenant, ChargeRow.shares > 0)
        if team is not None:
            query = query.where(ChargeRow.team == team)
        async with self._database.session(reading=True) as session:
            rows = list(await session.scalars(query.order_by(ChargeRow.shares.desc(), ChargeRow.namespace, ChargeRow.name)))
        return [(ObjectKey(row.namespace, row.kind, row.name), held) for row in rows if (held := _holding(row))]

    async def ping(self) -> None:
        """Raises Unavailable when the database does not answer."""
        async with self._database.session(reading=True) as session:
            await session.execute(text("SELECT 1"))


async def _swap(session: AsyncSession, made: Reservation, version: int) -> Reservation:
    """The compare-and-swap, inside one transaction. Answers with the marks that a row which goes takes along."""
    row = await session.get(ChargeRow, _identity(made.key), with_for_update=True)
    if _holding(row) != made.before:
        raise Conflict("the object's charge changed meanwhile")
    if made.after is not None:
        await _compare(session, made.after.tenant, made.after.team, version)
        session.add_all(_owner(made.key, uid) for uid in made.marks)
    else:
        mine = (OwnerRow.namespace == made.key.namespace, OwnerRow.kind == made.key.kind, OwnerRow.name == made.key.name)
        made = replace(made, marks=tuple(await session.scalars(select(OwnerRow.uid).where(*mine))))
        await session.execute(delete(OwnerRow).where(*mine))
    await _write(session, made, row)
    return made


async def _compare(session: AsyncSession, tenant: str, team: str, version: int) -> None:
    """Takes the account at `version`, or raises Conflict. A row lock (SQLite: the write lock) holds it until the commit."""
    if version == 0:
        session.add(AccountRow(tenant=tenant, team=team, version=0, used_shares=0))
        await session.flush()
    taken = await session.execute(
        update(AccountRow)
        .where(AccountRow.tenant == tenant, AccountRow.team == team, AccountRow.version == version)
        .values(version=AccountRow.version + 1)
        .execution_options(synchronize_session=False)
    )
    if getattr(taken, "rowcount", 0) != 1:
        raise Conflict("the team's account changed meanwhile")


async def _write(session: AsyncSession, made: Reservation, row: ChargeRow | None) -> None:
    """Moves the shares between accounts and replaces the object's row."""
    moves: dict[tuple[str, str], int] = {}
    for held, sign in ((made.before, -1), (made.after, 1)):
        if held is not None:
            moves[held.tenant, held.team] = moves.get((held.tenant, held.team), 0) + sign * held.shares
    for (tenant, team), shares in sorted(moves.items()):  # one order for all, so that two requests cannot wait for each other
        await session.execute(
            update(AccountRow)
            .where(AccountRow.tenant == tenant, AccountRow.team == team)
            .values(used_shares=AccountRow.used_shares + shares, version=AccountRow.version + 1)
            .execution_options(synchronize_session=False)
        )
    if row is not None:
        await session.delete(row)
        await session.flush()
    if made.after is not None:
        after = made.after
        session.add(
            ChargeRow(
                namespace=made.key.namespace,
                kind=made.key.kind,
                name=made.key.name,
                tenant=after.tenant,
                team=after.team,
                shares=after.shares,
                pod_shares=after.pod_shares,
                request_uid=after.request_uid,
                updated_at_unix=after.updated_at_unix,
            )
        )


def _owner(key: ObjectKey, uid: str) -> OwnerRow:
    return OwnerRow(uid=uid, namespace=key.namespace, kind=key.kind, name=key.name)


def _identity(key: ObjectKey) -> tuple[str, str, str]:
    return (key.namespace, key.kind, key.name)


def _holding(row: ChargeRow | None) -> Holding | None:
    if row is None:
        return None
    return Holding(row.tenant, row.team, row.shares, row.pod_shares, row.request_uid, row.updated_at_unix)
