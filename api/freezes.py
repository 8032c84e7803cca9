"""`/api/v1/freezes`: the emergency stop, and from what people write to what is frozen."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Depends

from api.access import By, Here
from api.compose import Management
from api.configuration import READERS
from api.routing import Routes, Sent, sent
from core.errors import BadInput, NotFound
from core.principal import Principal
from policies.freezes import Done, Target

routes = Routes("/api/v1", "freezes")
_KEY_LIKE = re.compile(r"(key:|pcl_)?[A-Z2-7]{12}\Z|key:")
_WHOLE_KEY = re.compile(r"pcl_[A-Z2-7]{12}_")


class Stop(Sent):
    """`target`: `model:NAME`, `model:NAME@VERSION`, `caller:ID` or `tenant:NAME`. `tenant`: whose; the caller's own when left out."""

    target: str
    reason: str
    tenant: str | None = None


class Lift(Sent):
    reason: str
    tenant: str | None = None


@routes.get("/freezes", *READERS)
async def freezes(here: Here, by: By) -> Any:
    """What is frozen: in the caller's tenant, or everywhere for the installation's own."""
    found = await here.freezes.list(None if by.tenant == here.settings.tenant else by.tenant)
    return {"freezes": [rule.model_dump(mode="json") for rule in found]}


@routes.post("/freezes", "admin", "operator", body=Stop, status=201)
async def freeze(here: Here, by: By, new: Annotated[Stop, Depends(sent(Stop))]) -> Any:
    """Denies a model, a caller or a tenant at every door within a second. Streams that run may finish."""
    tenant = whose(new.target, new.tenant, by)
    target = await resolve(here, new.target, tenant, known=True)
    return shown(await here.freezes.freeze(target, tenant=tenant, author=by, reason=new.reason))


@routes.delete("/freezes/{target:path}", "admin", body=Lift)
async def unfreeze(here: Here, by: By, target: str, why: Annotated[Lift, Depends(sent(Lift))]) -> Any:
    """Lifts exactly this freeze."""
    tenant = whose(target, why.tenant, by)
    found = await resolve(here, target, tenant, known=False)
    return shown(await here.freezes.unfreeze(found, tenant=tenant, author=by, reason=why.reason))


def whose(text: str, tenant: str | None, by: Principal) -> str:
    """The tenant that a freeze belongs to: the one named, the one that is its target, or the author's own."""
    kind, _, subject = text.partition(":")
    return tenant or (subject if kind == "tenant" else by.tenant)


def shown(done: Done) -> dict[str, Any]:
    return {"target": str(done.target), "tenant": done.tenant, "version": done.version, "changed": done.changed}


async def resolve(management: Management, text: str, tenant: str, *, known: bool) -> Target:
    """What `text` means in `tenant`: a key's id or prefix becomes the principal that it acts as.

    With `known` what nobody knows is NotFound, for a freeze of a wrong name would look like a stop and stop nothing. A caller that
    the cluster knows (a Kubernetes user name) is taken as it is written.
    """
    if _WHOLE_KEY.search(text):
        raise BadInput("give the key's id or prefix, never the whole key; rotate it now, for it has been shown", where="target")
    target = Target.parse(text)
    if target.kind == "caller":
        return Target("caller", await _caller(management, target.subject, tenant, known=known))
    if target.kind == "model" and known:
        name, _, version = target.subject.partition("@")
        if not any(ref.name == name and version in ("", ref.version) for ref in await management.models.all(tenant)):
            raise NotFound(f"{tenant} has no model {target.subject}; what is not registered is denied without a freeze")
    return target


async def _caller(management: Management, subject: str, tenant: str, *, known: bool) -> str:
    found = await management.keys.principal_of(tenant, subject)
    if found is not None:
        return found
    if known and _KEY_LIKE.match(subject):
        raise NotFound(
            f"{tenant} has no key {subject[:40]}; portcullis key list shows them, and a person is caller:person:NAME"
        )
    return subject
