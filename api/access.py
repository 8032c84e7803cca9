"""Who may use a route: the caller's key first (401), then their roles (403), and only then is anything they sent read (400).

A route without roles does not exist: `api.routing.Routes` asks for them, and a test walks through every route of the application.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request

from api.compose import Management, Served
from core.errors import Forbidden, Unauthenticated
from core.principal import Principal
from identity.bearer import bearer
from identity.roles import require


def served(request: Request) -> Served:
    """What the application was made of."""
    found: Served = request.app.state.served
    return found


def management(request: Request) -> Management:
    return served(request).management


Door = Annotated[Served, Depends(served)]
Here = Annotated[Management, Depends(management)]


def may(*roles: str) -> Callable[[Request], Awaitable[None]]:
    """The check in front of a route: a key that is in force, whose principal holds one of `roles`."""

    async def check(request: Request) -> None:
        door = served(request)
        here = door.management
        try:
            sent = request.headers.getlist("authorization")
            # Two credentials would have two readers.
            principal = await here.keys.authenticate(bearer(sent[0] if len(sent) == 1 else None))
        except Unauthenticated:
            door.refusals.add("unauthenticated", _route(request))
            raise
        try:
            require(principal, *roles)
        except Forbidden:
            actor = await here.commitments.ref(principal.tenant, principal.id)
            door.refusals.add("forbidden", _route(request), tenant=principal.tenant, actor=actor)
            raise
        request.state.principal = principal

    return check


def _route(request: Request) -> str:
    """The route's pattern, never the path as it was sent: what is recorded stays low in cardinality."""
    route: Any = request.scope.get("route")
    return f"{request.method} {route.path}"


def caller(request: Request) -> Principal:
    """Who passed the check of `may`."""
    found: Principal = request.state.principal
    return found


By = Annotated[Principal, Depends(caller)]


def at_home(here: Management, by: Principal) -> None:
    """Passes for principals of the tenant that owns this installation; Forbidden for others.

    For what holds more than one tenant's affairs: the operator's whole configuration, the log's records.
    """
    if by.tenant != here.settings.tenant:
        raise Forbidden("this shows more than your tenant's own; only the installation's tenant may read it")
