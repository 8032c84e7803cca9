"""`/bundles`: what decides, for OPA servers to load and to follow (openpolicyagent.org/docs/management-bundles)."""

from __future__ import annotations

import asyncio

from fastapi import Request, Response

from api.access import By, Door, at_home, may
from api.compose import Served
from api.longpoll import names, wait_asked
from api.routing import Routes
from core.errors import Unavailable
from policies.running import Published

routes = Routes("/bundles", "bundles")
READERS = ("service", "admin", "operator", "auditor")
GZIP, LONG_POLLING = "application/gzip", "application/vnd.openpolicyagent.bundles"
"""By the second of these types, on 200, OPA knows that its next question may wait. It then asks again at once after each 304."""


@routes.get("/portcullis.tar.gz", *READERS, head=True)
async def bundle(door: Door, by: By, request: Request) -> Response:
    """The bundle that decides now: the bytes that people approved or that the settings name. Never one that is only tried.

    With `If-None-Match` and `Prefer: wait=N` the answer comes as soon as another one decides, or as 304 after N seconds (60 at most).
    When too many wait already, and nothing has changed, it is 503.
    """
    at_home(door.management, by)
    known = request.headers.getlist("if-none-match")
    asked = wait_asked(request.headers.getlist("prefer")) if request.method == "GET" else 0
    with door.waits.place(asked) as seconds:
        found = await _other(door, request, known, seconds)
    if asked and not seconds and names(known, found.digest):
        # After a 304 before its time OPA would ask again without any delay; after an error it asks later each time.
        raise Unavailable("too many requests wait for the next bundle already, or the service stops; ask without Prefer: wait")
    headers = {"etag": f'"{found.digest}"', "cache-control": "private, no-cache"}
    kind = LONG_POLLING if seconds else GZIP
    if names(known, found.digest):
        return Response(status_code=304, media_type=kind, headers=headers)
    return Response(found.data, media_type=kind, headers=headers)


async def _other(door: Served, request: Request, known: list[str], seconds: int) -> Published:
    """What decides: as soon as it is none of `known`, after `seconds` in any case."""
    found = await door.engine.published()
    if not seconds or not names(known, found.digest):
        return found
    end = asyncio.get_running_loop().time() + seconds
    gone = asyncio.create_task(_gone(request))
    try:
        while names(known, found.digest) and await door.waits.pause(end) and not gone.done():
            found = await door.engine.published()
    finally:
        gone.cancel()
    await may(*READERS)(request)  # the key may have been revoked meanwhile
    return found


async def _gone(request: Request) -> None:
    """Returns when whoever asked has gone. (`Request.is_disconnected` never sees that behind a middleware.)"""
    while (await request.receive())["type"] != "http.disconnect":
        pass
