"""`/bundles`: what decides, for OPA servers to load and to follow (openpolicyagent.org/docs/management-bundles)."""

from __future__ import annotations

import asyncio

from fastapi import Request, Response

from api.access import By, Door, at_home, may
from api.compose import Served
from api.longpoll import names, wait_asked
from api.routing import Routes
from policies.live import Published

routes = Routes("/bundles", "bundles")
READERS = ("service", "admin", "operator", "auditor")
GZIP, LONG_POLLING = "application/gzip", "application/vnd.openpolicyagent.bundles"
"""By the second of these types, on 200 and 304, OPA knows that it may ask again at once, for the answer waits."""


@routes.get("/portcullis.tar.gz", *READERS, head=True)
async def bundle(door: Door, by: By, request: Request) -> Response:
    """The bundle that decides now: the bytes that people approved or that the settings name. Never one that is only tried.

    With `If-None-Match` and `Prefer: wait=N` the answer comes as soon as another one decides, or as 304 after N seconds (60 at most).
    When too many wait already it comes at once, of type application/gzip: OPA then asks again after its polling delay.
    """
    at_home(door.management, by)
    known = request.headers.getlist("if-none-match")
    asked = wait_asked(request.headers.getlist("prefer")) if request.method == "GET" else 0
    with door.waits.place(asked) as seconds:
        found = await _other(door, request, known, seconds)
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
    while names(known, found.digest) and await door.waits.pause(end) and not await request.is_disconnected():
        found = await door.engine.published()
    await may(*READERS)(request)  # the key may have been revoked meanwhile
    return found
