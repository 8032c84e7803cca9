"""`/api/v1/config`, `/exemptions`, `/quota`, `/policies`: what the operator set, what is used of it, and the rules in force."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, Query

from api import quota
from api.access import By, Door, Here, at_home
from api.models import Reason
from api.routing import EVERYBODY, Routes, Sent, sent
from core.errors import BadInput
from policies.reviewed import Action

routes = Routes("/api/v1", "configuration")
READERS = ("admin", "operator", "auditor")
NEWEST = 2**31 - 1
"""The largest number that a version can have in the database."""


class Change(Sent):
    """`path` such as `tenants.acme.teams.vision.gpu_quota`; `expected_version` makes a concurrent change a 409."""

    path: str
    value: Any
    reason: str
    expected_version: int | None = None


class TakeBack(Sent):
    path: str
    reason: str
    expected_version: int | None = None


class Proposed(Sent):
    """A change that people sign before it is made. `unset` takes back what was set, and then `value` is left out."""

    path: str
    reason: str
    value: Any = None
    unset: bool = False


class NewExemption(Sent):
    """`expires` with a zone: `2027-01-31T00:00:00Z`. `subjects`: `Deployment/chat`, `llama-3@7`, or `*` for all."""

    id: str
    rule: str
    owner: str
    reason: str
    ticket: str
    expires: str
    subjects: list[str]
    namespaces: list[str] = []
    teams: list[str] = []
    models: list[str] = []


@routes.get("/config", *READERS)
async def config(here: Here, by: By, path: str | None = None) -> Any:
    """The configuration in force, or the part of it at `path`."""
    at_home(here, by)
    return {"revision": await here.config.refresh(), "config": await here.config.show(path)}


@routes.put("/config", "admin", "operator", body=Change)
async def set_config(here: Here, by: By, new: Annotated[Change, Depends(sent(Change))]) -> Any:
    """Changes one value; the whole result is checked before it counts."""
    version = await here.config.set(new.path, new.value, author=by, reason=new.reason, expected_version=new.expected_version)
    return {"version": version}


@routes.delete("/config", "admin", "operator", body=TakeBack)
async def unset_config(here: Here, by: By, old: Annotated[TakeBack, Depends(sent(TakeBack))]) -> Any:
    """Takes back what was set; files and defaults show through again."""
    return {"version": await here.config.unset(old.path, author=by, reason=old.reason, expected_version=old.expected_version)}


@routes.post("/config/proposals", "admin", "operator", body=Proposed, status=201)
async def propose_change(here: Here, by: By, new: Annotated[Proposed, Depends(sent(Proposed))]) -> Any:
    """Keeps a change for registered approvers to sign, as one that weakens must be; an exemption under `exemptions.ID`."""
    if new.unset and new.value is not None:
        raise BadInput("what is taken back has no value", where="value")
    action: Action = "unset" if new.unset else "set"
    return asdict(await here.reviewed.propose(new.path, new.value, action=action, by=by, reason=new.reason))


@routes.post("/config/proposals/{id}/apply", "admin", "operator")
async def apply_change(here: Here, door: Door, by: By, id: str) -> Any:
    """Makes exactly the proposed change, once enough registered approvers other than its author have signed it."""
    return {"proposal": id, "version": await here.reviewed.apply(id, by=by, engine=door.engine)}


@routes.get("/config/history", *READERS)
async def history(here: Here, by: By) -> Any:
    """Who changed what, and why; newest first. Authors are references."""
    at_home(here, by)
    return {"versions": [asdict(version) for version in await here.config.history()]}


@routes.get("/config/diff", *READERS)
async def diff(
    here: Here,
    by: By,
    since: Annotated[int, Query(alias="from", ge=0, le=NEWEST)],
    until: Annotated[int | None, Query(alias="to", ge=0, le=NEWEST)] = None,
) -> Any:
    """What changed between two versions."""
    at_home(here, by)
    return {"changes": [asdict(change) for change in await here.config.diff(since, until)]}


@routes.get("/exemptions", *READERS)
async def exemptions(here: Here, by: By) -> Any:
    """The exemptions of the caller's tenant, and whether they count now."""
    found = await here.config.list_exemptions(by.tenant)
    return {"exemptions": [{**item.exemption.model_dump(mode="json"), "state": item.state} for item in found]}


@routes.post("/exemptions", "admin", "operator", body=NewExemption, status=201)
async def add_exemption(here: Here, by: By, new: Annotated[NewExemption, Depends(sent(NewExemption))]) -> Any:
    """A permission to break one rule until it expires, for exactly these subjects."""
    version = await here.config.add_exemption(**new.model_dump(), tenant=by.tenant, author=by)
    return {"id": new.id, "version": version}


@routes.post("/exemptions/{id}/revoke", "admin", "operator", body=Reason)
async def revoke_exemption(here: Here, by: By, id: str, why: Annotated[Reason, Depends(sent(Reason))]) -> Any:
    """Ends an exemption now."""
    return {"id": id, "version": await here.config.revoke_exemption(id, author=by, reason=why.reason)}


@routes.get("/quota", *EVERYBODY)
async def quotas(here: Here, door: Door, by: By) -> Any:
    """GPU shares held and allowed, by team of the caller's tenant; one GPU is 20,160 shares."""
    return {"teams": await quota.rows(here.config, door.accounts, by.tenant)}


@routes.get("/policies", *EVERYBODY)
async def policies(door: Door) -> Any:
    """The rules in force, from their METADATA, and the revision of the bundle."""
    engine = door.engine
    rules = [
        {
            "rule": rule.id,
            "title": rule.title,
            "severity": rule.severity,
            "description": rule.description,
            "controls": list(rule.controls),
            "mandatory": rule.mandatory,
        }
        for rule in engine.catalogue.rules()
    ]
    return {"revision": engine.revision, "engine": engine.name, "rules": rules}
