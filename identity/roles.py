"""Roles: who may do what to Portcullis itself. What a caller may do with models is policy, never a role check in Python."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from core.errors import BadInput, Conflict, Forbidden, NotFound
from core.ports import Clock, Commitments, Recorder
from core.principal import ROLES, Principal
from identity.access import check_principal_id, record_access
from identity.tables import RoleGrant
from storage.database import Database


@dataclass(frozen=True, slots=True)
class Held:
    """One role that one principal holds."""

    principal: str
    role: str
    granted_by_ref: str
    granted_unix: int


def require(principal: Principal, *roles: str) -> None:
    """Passes when `principal` holds one of `roles`; Forbidden otherwise, and also when no role was named at all."""
    if not principal.roles.intersection(roles):
        needed = " or ".join(roles) if roles else "a role that nobody holds"
        raise Forbidden(f"this needs the role {needed}; an administrator of {principal.tenant} can grant it")


def check_role(role: str) -> str:
    """`role` itself when it is one of `core.principal.ROLES`; BadInput otherwise."""
    if role not in ROLES:
        raise BadInput(f"{role[:40]!r} is not a role; there are {', '.join(ROLES)}")
    return role


class Roles:
    """Grants and revocations, each recorded before it takes effect. Everything happens in the administrator's own tenant."""

    def __init__(self, database: Database, *, recorder: Recorder, commitments: Commitments, clock: Clock) -> None:
        self._database = database
        self._recorder = recorder
        self._commitments = commitments
        self._clock = clock

    async def grant(self, principal: str, role: str, *, by: Principal) -> None:
        """Gives `principal` (an id) the role. Conflict when it holds it; Forbidden for oneself or without the role admin."""
        self._check(principal, role, by)
        if role in await self.of(by.tenant, principal):
            raise Conflict(f"the principal holds the role {role} already")
        actor = await self._record("role.grant", principal, role, by)
        row = RoleGrant(
            tenant=by.tenant,
            principal=principal,
            role=role,
            granted_by_ref=actor,
            granted_unix=self._clock.now_unix(),
        )
        try:
            async with self._database.session() as session:
                session.add(row)
        except IntegrityError as error:
            raise Conflict(f"the principal holds the role {role} already") from error

    async def revoke(self, principal: str, role: str, *, by: Principal) -> None:
        """Takes the role away. NotFound when the principal does not hold it."""
        check_principal_id(principal)
        check_role(role)
        require(by, "admin")
        if role not in await self.of(by.tenant, principal):
            raise NotFound(f"the principal does not hold the role {role}")
        await self._record("role.revoke", principal, role, by)
        held = (RoleGrant.tenant == by.tenant, RoleGrant.principal == principal, RoleGrant.role == role)
        async with self._database.session() as session:
            await session.execute(delete(RoleGrant).where(*held))

    async def of(self, tenant: str, principal: str) -> frozenset[str]:
        """The roles that a principal holds in a tenant."""
        query = select(RoleGrant.role).where(RoleGrant.tenant == tenant, RoleGrant.principal == principal)
        async with self._database.session(reading=True) as session:
            return frozenset(await session.scalars(query))

    async def list(self, tenant: str) -> list[Held]:
        """Every role held in a tenant, sorted by principal."""
        query = select(RoleGrant).where(RoleGrant.tenant == tenant).order_by(RoleGrant.principal, RoleGrant.role)
        async with self._database.session(reading=True) as session:
            rows = (await session.scalars(query)).all()
        return [Held(row.principal, row.role, row.granted_by_ref, row.granted_unix) for row in rows]

    def _check(self, principal: str, role: str, by: Principal) -> None:
        check_principal_id(principal)
        check_role(role)
        require(by, "admin")
        if principal == by.id:
            raise Forbidden("nobody grants a role to themselves; ask another administrator")

    async def _record(self, action: str, principal: str, role: str, by: Principal) -> str:
        return await record_access(
            self._recorder, self._commitments, action=action, subject=principal, by=by, details={"role": role}
        )
