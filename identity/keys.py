"""API keys: `pcl_<prefix>_<secret>`, shown once, stored as a keyed hash, in force until they expire or are revoked.

The prefix only finds the row. Whoever asks is who the *whole* token says, in the table and in the cache alike: a cache keyed
by part of a token gave one caller another one's identity (CVE-2026-35030).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.exc import IntegrityError

from core.errors import BadInput, ConfigError, Conflict, NotFound, Unauthenticated
from core.names import check_name
from core.ports import Clock, Commitments, Recorder
from core.principal import Principal, PrincipalKind
from identity.access import check_person, record_access
from identity.bearer import NO_CREDENTIALS
from identity.pepper import SIZE
from identity.roles import check_role, require
from identity.tables import ApiKey, RoleGrant
from storage.database import Database

CACHE_SECONDS = 1.0
CACHE_SIZE = 10_000
MAX_NAME = 100
_TOKEN = re.compile(r"pcl_([A-Z2-7]{12})_[A-Za-z0-9_-]{43}\Z")
_NO_DIGEST = bytes(32)
_CONTEXT = b"portcullis api key v1\x00"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """An API key as it may be shown: everything but the secret."""

    key_id: str
    principal: str
    tenant: str
    name: str
    team: str | None
    roles: frozenset[str]
    created_unix: int
    expires_unix: int | None
    revoked_unix: int | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `token` exists here and nowhere else; it is not part of the text form."""

    key_id: str
    token: str

    def __repr__(self) -> str:
        return f"NewKey(key_id={self.key_id!r}, token=<shown once>)"


@dataclass(frozen=True, slots=True)
class _Seen:
    principal: Principal
    expires_unix: int | None
    until: float


class ApiKeys:
    """Makes, lists, revokes, rotates and checks API keys. Administrators act in their own tenant only."""

    def __init__(
        self,
        database: Database,
        *,
        pepper: bytes,
        recorder: Recorder,
        commitments: Commitments,
        clock: Clock,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        if len(pepper) != SIZE:
            raise ConfigError(f"the pepper has {len(pepper)} bytes; {SIZE} are needed")
        if not 0 <= cache_seconds <= CACHE_SECONDS:
            raise ConfigError(f"an identity may be remembered for at most {CACHE_SECONDS} s, not {cache_seconds}")
        self._database = database
        self._pepper = pepper
        self._recorder = recorder
        self._commitments = commitments
        self._clock = clock
        self._cache_seconds = cache_seconds
        self._cache: dict[bytes, _Seen] = {}

    async def authenticate(self, token: str) -> Principal:
        """Who presents `token`. Unauthenticated, with one text and the same work, for an unknown, wrong, expired or revoked one.

        A revocation made by another process counts within one second; expiry counts at once.
        """
        whole = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        now = self._clock.now_unix()
        seen = self._cache.get(whole)
        if seen is not None and time.monotonic() < seen.until and (seen.expires_unix is None or now < seen.expires_unix):
            return seen.principal
        match = _TOKEN.match(token)
        if match is None:
            raise Unauthenticated(NO_CREDENTIALS)
        row, roles = await self._find(match[1])
        right = hmac.compare_digest(token_digest(self._pepper, token), row.digest if row is not None else _NO_DIGEST)
        in_force = row is not None and row.revoked_unix is None and (row.expires_unix is None or now < row.expires_unix)
        if row is None or not right or not in_force:
            raise Unauthenticated(NO_CREDENTIALS)
        principal = Principal(
            id=row.principal,
            kind=cast("PrincipalKind", row.kind),
            tenant=row.tenant,
            team=row.team,
            roles=roles,
            key_id=row.key_id,
        )
        self._remember(whole, _Seen(principal, row.expires_unix, time.monotonic() + self._cache_seconds))
        return principal

    async def create(
        self,
        *,
        name: str,
        by: Principal,
        team: str | None = None,
        roles: Collection[str] = (),
        expires_unix: int | None = None,
        person: str | None = None,
    ) -> NewKey:
        """A key for what `name` says uses it, in the tenant of `by`; its text is in the answer and never again.

        With `person` the key acts as that person (`person:NAME`), so that what they register and what they sign are one
        principal's; its roles are the person's own, and `roles` must then be empty. Raises BadInput, Forbidden.
        """
        require(by, "admin")
        _check_key(name, team, expires_unix, self._clock.now_unix())
        granted = sorted({check_role(role) for role in roles})
        if person is not None and granted:
            raise BadInput("a person's key has the person's roles; grant them to the person", where="roles")
        principal = None if person is None else f"person:{check_person(person)}"
        row, token = self._new(name=name, tenant=by.tenant, team=team, expires_unix=expires_unix, principal=principal)
        actor = await self._record("key.create", row.principal, by, roles=granted, key_id=row.key_id)
        async with self._database.session() as session:
            session.add(row)
            session.add_all(self._grants(row, granted, actor))
        return NewKey(row.key_id, token)

    async def ensure_admin(self, tenant: str) -> str | None:
        """The text of a new admin key when no admin key of `tenant` is in force, once; None when there is one.

        Two processes that start together make one key: a unique column decides, and the slower one gets None.
        """
        check_name(tenant, "tenant")
        if await self._has_admin(tenant):
            return None
        row, token = self._new(name="generated admin key", tenant=tenant, team=None, expires_unix=None, principal=None)
        row.kind, row.first_admin_of = "operator", tenant
        system = Principal(id="system:bootstrap", kind="operator", tenant=tenant)
        actor = await self._record("key.bootstrap", row.principal, system, roles=["admin"], key_id=row.key_id)
        try:
            async with self._database.session() as session:
                # A generated key that is no longer in force, or lost its role, gives up the column.
                old = update(ApiKey).where(ApiKey.first_admin_of == tenant, ~self._admin_in_force(tenant))
                await session.execute(old.values(first_admin_of=None), execution_options={"synchronize_session": False})
                session.add(row)
                session.add_all(self._grants(row, ["admin"], actor))
        except IntegrityError:
            return None  # another process made it a moment ago and shows it
        return token

    async def list(self, tenant: str) -> list[KeyInfo]:
        """Every key of a tenant, oldest first, revoked and expired ones included."""
        query = (
            select(ApiKey, RoleGrant.role)
            .outerjoin(RoleGrant, and_(RoleGrant.tenant == ApiKey.tenant, RoleGrant.principal == ApiKey.principal))
            .where(ApiKey.tenant == tenant)
            .order_by(ApiKey.created_unix, ApiKey.key_id)
        )
        async with self._database.session(reading=True) as session:
            found = (await session.execute(query)).all()
        roles: dict[str, set[str]] = {}
        for row, role in found:
            roles.setdefault(row.key_id, set()).update([role] if role is not None else [])
        rows = {row.key_id: row for row, _ in found}
        return [_info(row, frozenset(roles[key_id])) for key_id, row in rows.items()]

    async def principal_of(self, tenant: str, name: str) -> str | None:
        """The principal that the key with this id (`K…`, `key:K…`) or prefix (`pcl_…`) acts as; None when the tenant has none."""
        found = name.removeprefix("key:").removeprefix("pcl_")
        query = select(ApiKey.principal).where(ApiKey.tenant == tenant, or_(ApiKey.key_id == found, ApiKey.prefix == found))
        async with self._database.session(reading=True) as session:
            return await session.scalar(query.limit(1))

    async def revoke(self, key_id: str, *, by: Principal) -> None:
        """Ends a key now. NotFound for a key of another tenant too; Conflict when it was revoked before."""
        require(by, "admin")
        row = await self._of_tenant(key_id, by.tenant)
        if row.revoked_unix is not None:
            raise Conflict("the key was revoked before", where=key_id)
        await self._record("key.revoke", row.principal, by, key_id=key_id)
        async with self._database.session() as session:
            await session.execute(
                update(ApiKey)
                .where(ApiKey.key_id == key_id, ApiKey.tenant == by.tenant, ApiKey.revoked_unix.is_(None))
                .values(revoked_unix=self._clock.now_unix(), first_admin_of=None)
            )
        self._cache.clear()

    async def rotate(self, key_id: str, *, by: Principal) -> NewKey:
        """A new token for the same key: same id, principal, team and grants. The old token ends now.

        Raises NotFound, and Conflict for a key that is no longer in force or was changed meanwhile.
        """
        require(by, "admin")
        row = await self._of_tenant(key_id, by.tenant)
        if row.revoked_unix is not None or (row.expires_unix is not None and row.expires_unix <= self._clock.now_unix()):
            raise Conflict("the key is not in force any more; create a new one", where=key_id)
        prefix, token = _new_token()
        await self._record("key.rotate", row.principal, by, key_id=key_id)
        unchanged = (ApiKey.key_id == key_id, ApiKey.prefix == row.prefix, ApiKey.revoked_unix.is_(None))
        change = (
            update(ApiKey)
            .where(*unchanged)
            .values(prefix=prefix, digest=token_digest(self._pepper, token))
            .returning(ApiKey.key_id)
        )
        async with self._database.session() as session:
            if await session.scalar(change) is None:
                raise Conflict("the key was changed meanwhile; look at it again", where=key_id)
        self._cache.clear()
        return NewKey(key_id, token)

    async def _find(self, prefix: str) -> tuple[ApiKey | None, frozenset[str]]:
        """The key with this prefix and its principal's roles, in one indexed query."""
        query = (
            select(ApiKey, RoleGrant.role)
            .outerjoin(RoleGrant, and_(RoleGrant.tenant == ApiKey.tenant, RoleGrant.principal == ApiKey.principal))
            .where(ApiKey.prefix == prefix)
        )
        async with self._database.session(reading=True) as session:
            found = (await session.execute(query)).all()
        if not found:
            return None, frozenset()
        return found[0][0], frozenset(role for _, role in found if role is not None)

    async def _of_tenant(self, key_id: str, tenant: str) -> ApiKey:
        async with self._database.session(reading=True) as session:
            row = await session.get(ApiKey, key_id)
        if row is None or row.tenant != tenant:
            raise NotFound("there is no such key; `portcullis key list` shows them", where=key_id[:40])
        return row

    async def _has_admin(self, tenant: str) -> bool:
        query = select(ApiKey.key_id).where(self._admin_in_force(tenant)).limit(1)
        async with self._database.session(reading=True) as session:
            return await session.scalar(query) is not None

    def _admin_in_force(self, tenant: str) -> ColumnElement[bool]:
        held = select(RoleGrant.principal).where(RoleGrant.tenant == tenant, RoleGrant.role == "admin")
        return and_(
            ApiKey.tenant == tenant,
            ApiKey.revoked_unix.is_(None),
            or_(ApiKey.expires_unix.is_(None), ApiKey.expires_unix > self._clock.now_unix()),
            ApiKey.principal.in_(held),
        )

    def _new(
        self, *, name: str, tenant: str, team: str | None, expires_unix: int | None, principal: str | None
    ) -> tuple[ApiKey, str]:
        key_id = "K" + _base32(11)
        prefix, token = _new_token()
        row = ApiKey(
            key_id=key_id,
            tenant=tenant,
            prefix=prefix,
            digest=token_digest(self._pepper, token),
            principal=principal or f"key:{key_id}",
            kind="caller" if principal is None else "user",
            name=name,
            team=team,
            expires_unix=expires_unix,
            created_unix=self._clock.now_unix(),
        )
        return row, token

    def _grants(self, row: ApiKey, roles: Collection[str], actor: str) -> Sequence[RoleGrant]:
        return [
            RoleGrant(
                tenant=row.tenant, principal=row.principal, role=role, granted_by_ref=actor, granted_unix=row.created_unix
            )
            for role in roles
        ]

    def _remember(self, whole: bytes, seen: _Seen) -> None:
        if len(self._cache) >= CACHE_SIZE:
            self._cache.clear()
        self._cache[whole] = seen

    async def _record(self, action: str, principal: str, by: Principal, **details: object) -> str:
        return await record_access(self._recorder, self._commitments, action=action, subject=principal, by=by, details=details)


def token_digest(pepper: bytes, token: str) -> bytes:
    """What the table keeps of a token: HMAC-SHA256 under the pepper, over the whole token, prefix included."""
    return hmac.new(pepper, _CONTEXT + token.encode("ascii"), hashlib.sha256).digest()


def _new_token() -> tuple[str, str]:
    prefix = _base32(12)
    return prefix, f"pcl_{prefix}_{secrets.token_urlsafe(32)}"


def _base32(length: int) -> str:
    """Random letters and digits that survive being read aloud; five bits each."""
    return base64.b32encode(secrets.token_bytes(length)).decode("ascii")[:length]


def _check_key(name: str, team: str | None, expires_unix: int | None, now_unix: int) -> None:
    if not 1 <= len(name.strip()) <= MAX_NAME or len(name) > MAX_NAME or not name.isprintable():
        raise BadInput(f"say in 1 to {MAX_NAME} printable characters what uses the key", where="name")
    if team is not None:
        check_name(team, "team")
    if expires_unix is not None and not now_unix < expires_unix < 2**53:
        raise BadInput("the expiry must lie ahead (Unix seconds)", where="expires_unix")


def _info(row: ApiKey, roles: frozenset[str]) -> KeyInfo:
    return KeyInfo(
        key_id=row.key_id,
        principal=row.principal,
        tenant=row.tenant,
        name=row.name,
        team=row.team,
        roles=roles,
        created_unix=row.created_unix,
        expires_unix=row.expires_unix,
        revoked_unix=row.revoked_unix,
    )
