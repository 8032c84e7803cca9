"""`/api/v1/datasets`: licence, purposes, consent; withdrawing it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Depends

from api.access import By, Here
from api.models import WRITERS, Reason
from api.routing import EVERYBODY, Routes, Sent, reference, sent
from core.names import ModelRef

routes = Routes("/api/v1/datasets", "datasets")


class NewDataset(Sent):
    """`consent`: of the people in it. `purposes`: empty means any."""

    name: str
    version: str
    origin: str
    consent: Literal["given", "not_required"]
    licence: str | None = None
    purposes: list[str] = []
    digest: str | None = None


@routes.get("", *EVERYBODY)
async def datasets(here: Here, by: By) -> Any:
    """Every dataset of the caller's tenant."""
    return {"datasets": [asdict(found) for found in await here.datasets.all(by.tenant)]}


@routes.post("", *WRITERS, body=NewDataset, status=201)
async def register(here: Here, by: By, new: Annotated[NewDataset, Depends(sent(NewDataset))]) -> Any:
    """Registers a version of a dataset."""
    ref = reference(new.name, new.version)
    await here.datasets.register(
        ref,
        by=by,
        origin=new.origin,
        basis=new.consent,
        licence=new.licence,
        purposes=tuple(new.purposes),
        digest=new.digest,
    )
    return {"dataset": str(ref)}


@routes.get("/{name}/{version}", *EVERYBODY)
async def dataset(here: Here, by: By, name: str, version: str) -> Any:
    """Licence, purposes, consent, and the models that were trained on it."""
    return asdict(await here.datasets.show(by.tenant, reference(name, version)))


@routes.post("/{name}/{version}/withdraw", "admin", "operator", body=Reason)
async def withdraw(here: Here, by: By, name: str, version: str, why: Annotated[Reason, Depends(sent(Reason))]) -> Any:
    """Consent is withdrawn: every model trained on it is denied from the next decision on. Lists what was admitted before."""
    ref = reference(name, version)
    models = await here.datasets.withdraw(ref, by=by, reason=why.reason)
    running = [asdict(item) for model in models for item in await here.deployments.list(by.tenant, ModelRef.parse(model))]
    return {"dataset": str(ref), "models": list(models), "deployments": running}
