"""`/api/v1/models`: versions, their sealed manifest, card, approvals, and their end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, Request

from api.access import By, Door, Here
from api.routing import EVERYBODY, Routes, Sent, read_body, reference, sent
from core.dsse import MAX_BYTES
from core.errors import BadInput, NotFound
from core.jsonread import loads_object
from core.names import ModelRef
from lineage.statements import read_approval

routes = Routes("/api/v1/models", "models")
WRITERS = ("admin", "operator", "service")


class NewModel(Sent):
    """`datasets` are NAME@VERSION of what it was trained on."""

    name: str
    version: str
    datasets: list[str] = []
    team: str | None = None


class Manifest(Sent):
    """`digest` is `sha256:…` of the sealed manifest."""

    digest: str


class Reason(Sent):
    reason: str


@routes.get("", *EVERYBODY)
async def models(here: Here, by: By) -> Any:
    """Every version of the caller's tenant."""
    return {"models": [str(ref) for ref in await here.models.all(by.tenant)]}


@routes.post("", *WRITERS, body=NewModel, status=201)
async def register(here: Here, by: By, new: Annotated[NewModel, Depends(sent(NewModel))]) -> Any:
    """Registers a version; whoever registers it can never approve it."""
    ref = reference(new.name, new.version)
    await here.models.register(ref, by=by, datasets=[ModelRef.parse(item) for item in new.datasets], team=new.team)
    return {"model": str(ref)}


@routes.get("/{name}/{version}", *EVERYBODY)
async def model(here: Here, by: By, name: str, version: str) -> Any:
    """Everything that decides whether it may be used. People are references."""
    found = await here.registry.model(by.tenant, reference(name, version))
    if found is None:
        raise NotFound(f"{name}@{version} is not registered")
    return found.model_dump(mode="json", exclude_none=True)


@routes.get("/{name}/{version}/deployments", *EVERYBODY)
async def deployments(here: Here, by: By, name: str, version: str) -> Any:
    """The workloads that were admitted with this version and have not been deleted since."""
    return {"deployments": [asdict(item) for item in await here.deployments.list(by.tenant, reference(name, version))]}


@routes.put("/{name}/{version}/manifest", *WRITERS, body=Manifest)
async def set_manifest(here: Here, by: By, name: str, version: str, new: Annotated[Manifest, Depends(sent(Manifest))]) -> Any:
    """Says which sealed manifest the version stands for; approvals of another one count no more."""
    ref = reference(name, version)
    await here.models.set_manifest(ref, new.digest, by=by)
    return {"model": str(ref), "manifest": new.digest}


@routes.put("/{name}/{version}/card", *WRITERS)
async def set_card(here: Here, by: By, name: str, version: str, request: Request) -> Any:
    """Keeps a new version of the card (the body) and says which mandatory fields are missing."""
    ref = reference(name, version)
    missing = await here.models.set_card(ref, loads_object(await read_body(request)), by=by)
    return {"model": str(ref), "missing": missing}


@routes.post("/{name}/{version}/approvals", *EVERYBODY, status=201)
async def approve(door: Door, by: By, name: str, version: str, request: Request) -> Any:
    """Submits a DSSE envelope (the body): who signed counts, not who delivers. 403 with the decision when it does not count."""
    envelope = await read_body(request, MAX_BYTES)
    if read_approval(envelope).model != reference(name, version):
        raise BadInput("the statement is about another version than the path", where="subject")
    return (await door.approvals.submit(by.tenant, envelope)).as_json()


@routes.post("/{name}/{version}/revoke", "admin", "operator", body=Reason)
async def revoke(here: Here, by: By, name: str, version: str, why: Annotated[Reason, Depends(sent(Reason))]) -> Any:
    """Ends a version for good: denied from the next decision on."""
    ref = reference(name, version)
    await here.models.revoke(ref, by=by, reason=why.reason)
    return {"model": str(ref), "state": "revoked"}
