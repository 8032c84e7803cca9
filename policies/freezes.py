"""The emergency stop: a model, a caller or a tenant is denied at every door within a second, until an administrator lifts it.

A freeze is an item of the operator's configuration (`freezes`), so it is versioned, in force wherever the configuration is, and
carried in the input of the decisions it concerns; the mandatory rules `DOMAIN/frozen` decide. What is on record is who did it (a
reference), what it was about (a caller as a reference) and the digest of the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from core.canonical import sha256
from core.errors import BadInput, Conflict, Forbidden, NotFound
from core.ports import Clock, Commitments
from core.principal import Principal
from policies import config_overlay as overlay
from policies.changes import Intent
from policies.config import FreezeRule, Path, check_target, freeze_key, show_time
from policies.store import ConfigStore

Kind = Literal["model", "caller", "tenant"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is frozen; `str()` is what people write."""

    kind: Kind
    subject: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """`model:NAME`, `model:NAME@VERSION`, `caller:ID`, `tenant:NAME`; plain `NAME@VERSION` is a model. BadInput otherwise."""
        if ":" not in text and "@" in text:
            text = f"model:{text}"
        kind, _, subject = check_target(text).partition(":")
        return cls(cast("Kind", kind), subject)

    def __str__(self) -> str:
        return f"{self.kind}:{self.subject}"


@dataclass(frozen=True, slots=True)
class Done:
    """The version that holds the change; `changed` is false where the target was frozen before."""

    target: Target
    tenant: str
    version: int
    changed: bool


class Freezes:
    """`freeze` needs the role admin or operator, `unfreeze` admin. Who is not of the installation's tenant acts in their own."""

    def __init__(self, store: ConfigStore, *, commitments: Commitments, clock: Clock) -> None:
        self._store = store
        self._commitments = commitments
        self._clock = clock

    async def freeze(self, target: Target, *, tenant: str, author: Principal, reason: str) -> Done:
        """In force at every door within a second. Freezing what is frozen changes nothing and is no error.

        Raises BadInput (no reason, a tenant that is not its own target), NotFound (no such tenant), Forbidden, EvidenceUnavailable.
        """
        path = _path(target, tenant)
        self._check_scope(tenant, author)
        await self._check_tenant(tenant)
        if await self._find(target, tenant) is not None:
            return Done(target, tenant, (await self._store.version()), changed=False)
        item = {
            "tenant": tenant,
            "target": str(target),
            "since": show_time(self._clock.now_unix()),
            "reason": reason,
        }
        intent = await self._intent("freeze", target, tenant, author, reason)
        version = await self._store.apply(lambda document: overlay.put(document, path, item), intent)
        return Done(target, tenant, version, changed=True)

    async def unfreeze(self, target: Target, *, tenant: str, author: Principal, reason: str) -> Done:
        """Lifts exactly this freeze. NotFound when there is none, Conflict when a file of the configuration declares it."""
        if "admin" not in author.roles:
            raise Forbidden("lifting a freeze needs the role admin; whoever may freeze may not always lift it")
        path = _path(target, tenant)
        self._check_scope(tenant, author)
        if await self._find(target, tenant) is None:
            raise NotFound(f"{target} is not frozen in {tenant}; portcullis freeze --list shows what is")
        if not await self._store.holds(path):
            raise Conflict("a file of the configuration declares this freeze; take it out there", where=overlay.show_path(path))
        intent = await self._intent("unfreeze", target, tenant, author, reason)
        version = await self._store.apply(lambda document: overlay.drop(document, path), intent)
        return Done(target, tenant, version, changed=True)

    async def list(self, tenant: str | None = None) -> list[FreezeRule]:
        """What is frozen (in one tenant), as the sources say now, sorted."""
        found = await self._store.latest()
        rules = [rule for rule in found.freezes if tenant in (None, rule.tenant)]
        return sorted(rules, key=lambda rule: (rule.tenant, rule.target))

    async def _find(self, target: Target, tenant: str) -> FreezeRule | None:
        return next((rule for rule in await self.list(tenant) if rule.target == str(target)), None)

    def _check_scope(self, tenant: str, author: Principal) -> None:
        if self._store.home not in (None, author.tenant) and tenant != author.tenant:
            raise Forbidden(f"only operators of {self._store.home} may freeze in another tenant than their own")

    async def _check_tenant(self, tenant: str) -> None:
        known = (await self._store.latest()).tenants
        if tenant != self._store.home and tenant not in known:
            raise NotFound(f"there is no tenant {tenant[:128]}; a freeze of it would stop nothing")

    async def _intent(self, action: str, target: Target, tenant: str, author: Principal, reason: str) -> Intent:
        shown = target.subject
        if target.kind == "caller":
            shown = await self._commitments.ref(tenant, target.subject)
        path = overlay.show_path(("freezes", freeze_key(tenant, f"{target.kind}:{shown}")))
        details: dict[str, Any] = {"target": target.kind, "of": tenant}
        digests = {"reason": sha256(reason.encode("utf-8", "surrogatepass"))}
        return Intent("freeze", action, path, author, reason, subject=shown, details=details, digests=digests)


def _path(target: Target, tenant: str) -> Path:
    if target.kind == "tenant" and target.subject != tenant:
        raise BadInput(f"the tenant {target.subject} is frozen as itself, not within {tenant}", where="tenant")
    return ("freezes", freeze_key(tenant, str(target)))
