"""`/api/v1/decisions`, `/evidence`, `/reports`: what was decided, its proof, and what it shows an auditor."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Query, Response

from api.access import By, Door, Here, at_home
from api.compose import Management
from api.explain import explained
from api.routing import Routes
from core.errors import BadInput, NotFound
from core.principal import Principal
from evidence import report
from evidence.reader import Reader, Stored
from identity.roles import require

routes = Routes("/api/v1", "evidence")
READERS = ("admin", "auditor", "operator")
PAGE = 256
MAX_LIMIT = 500
EXPLAINING = asyncio.Semaphore(1)
"""An explanation decides some hundred times: one at a time, so that readers cannot keep the management API from its work."""


def _reader(here: Management) -> Reader:
    return Reader(Path(here.settings.evidence.dir))


@routes.get("/decisions", *READERS)
async def decisions(
    here: Here,
    by: By,
    kind: str | None = None,
    before: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
) -> Any:
    """Decisions of the caller's tenant, newest first. `before` (a `seq`) goes on from the last one of the page before."""
    try:
        reader = _reader(here)
    except NotFound:  # nothing has been sequenced yet
        return {"decisions": [], "next_before": None}
    found = await asyncio.to_thread(lambda: list(_newest(reader, by.tenant, kind, before, limit)))
    return {"decisions": found, "next_before": found[-1]["seq"] if len(found) == limit else None}


def _newest(reader: Reader, tenant: str, kind: str | None, before: int | None, limit: int) -> Iterator[dict[str, Any]]:
    """Backwards through the log, a tile at a time, so that the newest page costs the same in a long log."""
    end = min(reader.checkpoint().size, before) if before is not None else reader.checkpoint().size
    left = limit
    while end > 0 and left > 0:
        start = (end - 1) // PAGE * PAGE
        for stored in reversed(list(reader.stored(start=start, end=end))):
            record = stored.record
            if record["tenant"] == tenant and record["decision"] is not None and kind in (None, record["kind"]):
                yield record
                left -= 1
                if left == 0:
                    return
        end = start


@routes.get("/decisions/{id}", *READERS)
async def decision(here: Here, door: Door, by: By, id: str, explain: bool = False) -> Any:
    """One record, by its own id or its decision's. `explain=true` (admin or auditor, for it shows the input) adds why it came out so."""
    record = (await _own(here, by, id)).record
    if not explain:
        return record
    require(by, "admin", "auditor")
    async with EXPLAINING:
        folder = Path(here.settings.evidence.dir)
        told = await asyncio.to_thread(explained, folder, record["id"], lambda: door.engine.base)
    return {**record, "explanation": told.as_json()}


@routes.get("/evidence/{id}/proof", *READERS)
async def proof(here: Here, by: By, id: str) -> Response:
    """The C2SP tlog-proof that the record is in the log."""
    await _own(here, by, id)
    return Response(await asyncio.to_thread(_reader(here).prove, id), media_type="text/plain; charset=utf-8")


@routes.get("/reports", *READERS)
async def frameworks() -> Any:
    """The frameworks that there are reports for."""
    return {"frameworks": report.frameworks()}


@routes.get("/reports/{framework}", "admin", "auditor")
async def build_report(
    here: Here,
    by: By,
    framework: str,
    form: Annotated[Literal["html", "json"], Query(alias="format")] = "json",
    since: Annotated[str | None, Query(alias="from")] = None,
    until: Annotated[str | None, Query(alias="to")] = None,
) -> Response:
    """What the records of the caller's tenant show of each control, for the days `from` to `to` (2026-11-01, UTC)."""
    first, last = _day(since, "from"), _day(until, "to")

    def work() -> bytes:
        end = None if last is None else last + 86_400
        return report.render(report.build(framework, _reader(here), tenant=by.tenant, since=first, until=end), form)

    await asyncio.to_thread(here.sequencer.integrate_if_free)
    data = await asyncio.to_thread(work)
    return Response(data, media_type="application/json" if form == "json" else "text/html; charset=utf-8")


async def _own(here: Management, by: Principal, id: str) -> Stored:
    """The record, when it is the caller's tenant's. NotFound for another tenant's too."""
    found = await asyncio.to_thread(_reader(here).find, id)
    if found.record["tenant"] != by.tenant:
        raise NotFound(f"the log holds no record and no decision {id[:80]!r}")
    return found


def _day(text: str | None, where: str) -> int | None:
    if text is None:
        return None
    try:
        return int(dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC).timestamp())
    except ValueError as error:
        raise BadInput("write a day as 2026-11-01", where=where) from error


log = Routes("/log", "log")


@log.public("/checkpoint", description="The signed tree head (C2SP tlog-checkpoint). Public.")
async def checkpoint(here: Here) -> Response:
    return await _resource(here, "checkpoint")


@log.get("/tile/entries/{path:path}", "admin", "auditor")
async def entries(here: Here, by: By, path: str) -> Response:
    """The records themselves (C2SP tlog-tiles); only the installation's tenant reads them, for they are every tenant's."""
    at_home(here, by)
    return await _resource(here, f"tile/entries/{path}")


@log.public("/tile/{path:path}", description="Hashes of the tree (C2SP tlog-tiles). Public: they tell nothing of the records.")
async def tile(here: Here, path: str) -> Response:
    # `entries/…` never comes here: the route above takes it, however its slash was written.
    return await _resource(here, f"tile/{path}")


async def _resource(here: Management, path: str) -> Response:
    data = await asyncio.to_thread(_reader(here).log.resource, path)
    if data is None:
        raise NotFound("the log has no such tile", where=path[:120])
    kind = "text/plain; charset=utf-8" if path == "checkpoint" else "application/octet-stream"
    caching = "no-cache" if path == "checkpoint" else "public, max-age=604800, immutable"
    return Response(data, media_type=kind, headers={"cache-control": caching})
