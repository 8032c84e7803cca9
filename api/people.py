"""`/api/v1/keys`, `/approvers`, `/roles`, `/whoami`: who may call, who may approve, who may do what here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends

from api.access import By, Here
from api.routing import EVERYBODY, Routes, Sent, sent
from identity.keys import KeyInfo

routes = Routes("/api/v1", "people")
DAY = 86_400


class NewKey(Sent):
    """`name` says what uses the key. `days` until it expires."""

    name: str
    team: str | None = None
    roles: list[str] = []
    days: int = 90
    person: str | None = None


class NewApprover(Sent):
    """`public_key` in PEM, from `portcullis identity keygen`."""

    person: str
    public_key: str


class RoleOf(Sent):
    """`principal` is an id such as `key:K…` or `person:NAME`."""

    principal: str
    role: str


@routes.get("/whoami", *EVERYBODY)
async def whoami(by: By) -> Any:
    """Whom the presented key stands for."""
    return {"principal": by.id, "tenant": by.tenant, "team": by.team, "roles": sorted(by.roles)}


@routes.get("/keys", "admin", "auditor")
async def keys(here: Here, by: By) -> Any:
    """Every key of the caller's tenant, without its secret."""
    return {"keys": [_shown(found) for found in await here.keys.list(by.tenant)]}


@routes.post("/keys", "admin", body=NewKey, status=201)
async def create_key(here: Here, by: By, new: Annotated[NewKey, Depends(sent(NewKey))]) -> Any:
    """Makes a key; `token` is in this answer and never again."""
    expires = here.clock.now_unix() + new.days * DAY
    made = await here.keys.create(name=new.name, by=by, team=new.team, roles=new.roles, expires_unix=expires, person=new.person)
    return {"key_id": made.key_id, "token": made.token}


@routes.delete("/keys/{key_id}", "admin")
async def revoke_key(here: Here, by: By, key_id: str) -> Any:
    """Ends a key; it is refused everywhere within a second."""
    await here.keys.revoke(key_id, by=by)
    return {"key_id": key_id, "state": "revoked"}


@routes.post("/keys/{key_id}/rotate", "admin")
async def rotate_key(here: Here, by: By, key_id: str) -> Any:
    """A new secret for the same key; the old one stops at once."""
    made = await here.keys.rotate(key_id, by=by)
    return {"key_id": made.key_id, "token": made.token}


@routes.get("/approvers", "admin", "auditor")
async def approvers(here: Here, by: By) -> Any:
    """Everybody registered in the caller's tenant, with their keys."""
    return {"approvers": [asdict(found) for found in await here.approvers.list(by.tenant)]}


@routes.post("/approvers", "admin", body=NewApprover, status=201)
async def add_approver(here: Here, by: By, new: Annotated[NewApprover, Depends(sent(NewApprover))]) -> Any:
    """Registers a person's public key; their signatures count from now on."""
    return {"person": new.person, "key_id": await here.approvers.register_approver(new.person, new.public_key, by=by)}


@routes.delete("/approvers/{person}", "admin")
async def revoke_approver(here: Here, by: By, person: str) -> Any:
    """Ends all keys of a person and their role."""
    await here.approvers.revoke_person(person, by=by)
    return {"revoked": person}


@routes.delete("/approvers/keys/{key_id}", "admin")
async def revoke_approver_key(here: Here, by: By, key_id: str) -> Any:
    """Ends one key of an approver."""
    await here.approvers.revoke_key(key_id, by=by)
    return {"revoked": key_id}


@routes.get("/roles", "admin", "auditor")
async def roles(here: Here, by: By) -> Any:
    """Every role that is held in the caller's tenant."""
    return {"roles": [asdict(held) for held in await here.roles.list(by.tenant)]}


@routes.post("/roles", "admin", body=RoleOf, status=201)
async def grant_role(here: Here, by: By, new: Annotated[RoleOf, Depends(sent(RoleOf))]) -> Any:
    """Gives a principal a role."""
    await here.roles.grant(new.principal, new.role, by=by)
    return {"principal": new.principal, "role": new.role}


@routes.delete("/roles", "admin", body=RoleOf)
async def revoke_role(here: Here, by: By, old: Annotated[RoleOf, Depends(sent(RoleOf))]) -> Any:
    """Takes a role away."""
    await here.roles.revoke(old.principal, old.role, by=by)
    return {"principal": old.principal, "role": old.role}


def _shown(key: KeyInfo) -> dict[str, Any]:
    return {**asdict(key), "roles": sorted(key.roles)}
