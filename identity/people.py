"""People whose signatures count: registered beforehand by an administrator, one principal per person, any number of keys.

A key that anyone could add for themselves would let one person approve twice; so only an administrator registers, never
for themselves, and a public key belongs to one person of the tenant for ever, also after its revocation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import Conflict, Forbidden, NotFound
from core.ports import Clock, Commitments, Recorder
from core.principal import Principal
from identity.access import check_person, record_access
from identity.ed25519 import key_id_of, read_public_key
from identity.roles import require
from identity.tables import Person, PersonKey, RoleGrant
from storage.database import Database

APPROVER = "approver"


@dataclass(frozen=True, slots=True)
class ApproverKey:
    key_id: str
    registered_unix: int
    revoked_unix: int | None


@dataclass(frozen=True, slots=True)
class Approver:
    """A registered person with all their keys; `approves` is whether they hold the role now."""

    person: str
    principal: str
    approves: bool
    keys: tuple[ApproverKey, ...]


class Approvers:
    """Implements `core.ports.ApproverDirectory`. Every change is recorded before it takes effect."""

    def __init__(self, database: Database, *, recorder: Recorder, commitments: Commitments, clock: Clock) -> None:
        self._database = database
        self._recorder = recorder
        self._commitments = commitments
        self._clock = clock

    async def register_approver(self, person: str, key: bytes | str, *, by: Principal) -> str:
        """Registers `person` with a public key (raw 32 bytes or PEM), or a further key of theirs; returns the key's id.

        The person holds the role `approver` from now on. Raises BadInput (not a usable public key), Forbidden (not an
        administrator, or oneself) and Conflict (the key is registered already, whoever's it is).
        """
        require(by, "admin")
        check_person(person)
        principal = f"person:{person}"
        if by.id == principal:
            raise Forbidden("nobody registers themselves as an approver; ask another administrator")
        public_key = read_public_key(key)
        key_id = key_id_of(public_key)
        await self._check_free(by.tenant, key_id, person)
        actor = await self._record("approver.register", principal, by, key_id)
        now = self._clock.now_unix()
        try:
            async with self._database.session() as session:
                if await session.get(Person, (by.tenant, person)) is None:
                    session.add(Person(tenant=by.tenant, person=person, registered_by_ref=actor, registered_unix=now))
                    await session.flush()
                session.add(
                    PersonKey(
                        tenant=by.tenant,
                        key_id=key_id,
                        person=person,
                        public_key=public_key,
                        registered_by_ref=actor,
                        registered_unix=now,
                    )
                )
                if await session.get(RoleGrant, (by.tenant, principal, APPROVER)) is None:
                    session.add(
                        RoleGrant(tenant=by.tenant, principal=principal, role=APPROVER, granted_by_ref=actor, granted_unix=now)
                    )
        except IntegrityError as error:
            raise Conflict("this person or key was registered by somebody else meanwhile; look again", where=key_id) from error
        return key_id

    async def approver(self, tenant: str, key_id: str) -> tuple[Principal, bytes, bool] | None:
        """The person behind a key, their raw public key and whether it is revoked; None when it is not registered."""
        query = (
            select(PersonKey, RoleGrant.role)
            .outerjoin(
                RoleGrant,
                (RoleGrant.tenant == PersonKey.tenant) & (RoleGrant.principal == "person:" + PersonKey.person),
            )
            .where(PersonKey.tenant == tenant, PersonKey.key_id == key_id)
        )
        async with self._database.session(reading=True) as session:
            found = (await session.execute(query)).all()
        if not found:
            return None
        row = found[0][0]
        principal = Principal(
            id=f"person:{row.person}",
            kind="user",
            tenant=tenant,
            roles=frozenset(role for _, role in found if role is not None),
            key_id=key_id,
        )
        return principal, row.public_key, row.revoked_unix is not None

    async def list(self, tenant: str) -> list[Approver]:
        """Everyone ever registered in a tenant, by name."""
        held = select(RoleGrant.principal).where(RoleGrant.tenant == tenant, RoleGrant.role == APPROVER)
        keys = select(PersonKey).where(PersonKey.tenant == tenant).order_by(PersonKey.registered_unix, PersonKey.key_id)
        people = select(Person.person).where(Person.tenant == tenant).order_by(Person.person)
        async with self._database.session(reading=True) as session:
            approving = set(await session.scalars(held))
            names = (await session.scalars(people)).all()
            rows = (await session.scalars(keys)).all()
        by_person: dict[str, list[ApproverKey]] = {}
        for row in rows:
            by_person.setdefault(row.person, []).append(ApproverKey(row.key_id, row.registered_unix, row.revoked_unix))
        return [
            Approver(name, f"person:{name}", f"person:{name}" in approving, tuple(by_person.get(name, []))) for name in names
        ]

    async def revoke_key(self, key_id: str, *, by: Principal) -> None:
        """Ends one key: what it signs from now on does not count. NotFound; Conflict when it was revoked before."""
        require(by, "admin")
        async with self._database.session(reading=True) as session:
            row = await session.get(PersonKey, (by.tenant, key_id))
        if row is None:
            raise NotFound("no approver has this key; `portcullis identity approver list` shows them", where=key_id[:80])
        if row.revoked_unix is not None:
            raise Conflict("the key was revoked before", where=key_id)
        await self._record("approver.revoke_key", f"person:{row.person}", by, key_id)
        async with self._database.session() as session:
            await self._revoke(session, by.tenant, [key_id])

    async def revoke_person(self, person: str, *, by: Principal) -> None:
        """Ends all keys of a person and their role `approver`. NotFound when nobody has that name, or nothing is left to end."""
        require(by, "admin")
        check_person(person)
        principal = f"person:{person}"
        known = [found for found in await self.list(by.tenant) if found.person == person]
        live = [key.key_id for found in known for key in found.keys if key.revoked_unix is None]
        if not known or not (live or known[0].approves):
            raise NotFound("there is no such approver; `portcullis identity approver list` shows them")
        await self._record("approver.revoke", principal, by, *live)
        role = (RoleGrant.tenant == by.tenant, RoleGrant.principal == principal, RoleGrant.role == APPROVER)
        async with self._database.session() as session:
            # Every key of the person, not only those seen above: one that was added meanwhile must not survive.
            every = select(PersonKey.key_id).where(PersonKey.tenant == by.tenant, PersonKey.person == person)
            await self._revoke(session, by.tenant, (await session.scalars(every)).all())
            await session.execute(delete(RoleGrant).where(*role))

    async def _revoke(self, session: AsyncSession, tenant: str, key_ids: Collection[str]) -> None:
        live = (PersonKey.tenant == tenant, PersonKey.key_id.in_(key_ids), PersonKey.revoked_unix.is_(None))
        await session.execute(update(PersonKey).where(*live).values(revoked_unix=self._clock.now_unix()))

    async def _check_free(self, tenant: str, key_id: str, person: str) -> None:
        async with self._database.session(reading=True) as session:
            row = await session.get(PersonKey, (tenant, key_id))
        if row is None:
            return
        if row.person != person:
            raise Conflict(
                "this public key belongs to another person; every person signs with a key of their own", where=key_id
            )
        raise Conflict("this public key is registered for this person already, or was revoked; make a new one", where=key_id)

    async def _record(self, action: str, principal: str, by: Principal, *key_ids: str) -> str:
        return await record_access(
            self._recorder, self._commitments, action=action, subject=principal, by=by, details={"key_ids": list(key_ids)}
        )
