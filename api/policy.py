"""`/api/v1/policy`: proposed changes of rules, signatures over them, and what runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Depends, Request

from api.access import By, Door, Here, at_home
from api.models import Reason
from api.routing import Routes, Sent, read_body, sent
from core.dsse import MAX_BYTES
from policies.rollout import Bounds

routes = Routes("/api/v1/policy", "policy")
READERS = ("admin", "operator", "approver", "auditor")


class Start(Sent):
    """`percent` (1 to 99) goes with `percentage`. The bounds are shares of all compared decisions, once `compared` have been."""

    stage: Literal["shadow", "percentage", "full"]
    percent: int = 0
    max_denials: float = 0.05
    max_failures: float = 0.01
    compared: int = 50
    reason: str


@routes.get("/proposals", *READERS)
async def proposals(here: Here, by: By, state: Literal["open", "withdrawn", "done", "all"] = "open") -> Any:
    """Proposed changes, newest first, with what differs and who signed. People are references."""
    at_home(here, by)
    found = await here.proposals.list(None if state == "all" else state)
    return {"proposals": [asdict(one) for one in found]}


@routes.get("/proposals/{id}", *READERS)
async def proposal(here: Here, by: By, id: str) -> Any:
    """One proposed change."""
    at_home(here, by)
    return asdict(await here.proposals.get(id))


@routes.post("/proposals/{id}/approvals", "approver", "admin", "operator", status=201)
async def approve(here: Here, door: Door, by: By, id: str, request: Request) -> Any:
    """A DSSE envelope over the proposal's exact content. Whose signature it is counts, not who sends it."""
    at_home(here, by)
    envelope = await read_body(request, MAX_BYTES)
    decision = await here.proposals.approve(envelope, engine=door.engine, about=id)
    return decision.as_json()


@routes.post("/proposals/{id}/withdraw", "admin", "operator", body=Reason)
async def withdraw(here: Here, by: By, id: str, why: Annotated[Reason, Depends(sent(Reason))]) -> Any:
    """Ends an open proposal; it can take effect no more."""
    await here.proposals.withdraw(id, by=by, reason=why.reason)
    return {"id": id, "state": "withdrawn"}


@routes.post("/proposals/{id}/rollout", "admin", "operator", body=Start)
async def start(here: Here, door: Door, by: By, id: str, new: Annotated[Start, Depends(sent(Start))]) -> Any:
    """Brings an approved bundle to a stage; doors follow within a second."""
    bounds = Bounds(denials=new.max_denials, failures=new.max_failures, compared=new.compared)
    state = await here.director.start(
        id, stage=new.stage, percent=new.percent, bounds=bounds, by=by, reason=new.reason, engine=door.engine
    )
    return state.as_json()


@routes.get("/rollout", *READERS)
async def running(here: Here, door: Door, by: By) -> Any:
    """What runs: in the database, and in this process; and how a candidate compares so far."""
    at_home(here, by)
    state = await here.rollouts.state()
    tally = await here.rollouts.tally(state.version)
    return {
        **state.as_json(),
        "tally": asdict(tally),
        "here": {"version": door.engine.state.version, "revision": door.engine.revision},
    }


@routes.post("/rollout/stop", "admin", "operator", body=Reason)
async def stop(here: Here, by: By, why: Annotated[Reason, Depends(sent(Reason))]) -> Any:
    """Ends a trial: what decided before it goes on deciding."""
    return (await here.director.stop(by=by, reason=why.reason)).as_json()


@routes.get("/rollout/history", *READERS)
async def history(here: Here, by: By) -> Any:
    """What ran since when, and why it changed."""
    at_home(here, by)
    return {"states": [state.as_json() for state in await here.rollouts.history()]}
