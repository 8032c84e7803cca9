"""The management API as one FastAPI application. A route calls one function of a room; nothing is decided here."""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from api import bundles, configuration, datasets, evidence, freezes, models, people, policy, release
from api.compose import Served
from core.errors import PortcullisError, Refused, Unauthenticated

log = logging.getLogger("portcullis.api")
PUBLIC = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs", "/log/checkpoint", "/log/tile/{path:path}"})
"""Routes that need no key; a test holds every other one to 401, then 403, before anything sent is read."""
DECIDES = ("/keys/release", "/approvals", "/rollout")
"""Routes that ask for a decision."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}


def application(served: Served) -> FastAPI:
    """The application over these rooms."""
    app = FastAPI(
        title="Portcullis",
        description="Models, data, approvals, keys, configuration, decisions and their proofs.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.served = served
    for module in (models, datasets, release, people, configuration, freezes, policy, evidence, bundles):
        app.include_router(module.routes.router)
    app.include_router(evidence.log.router)
    app.add_api_route("/healthz", _health, include_in_schema=False)
    app.add_api_route("/readyz", _ready, include_in_schema=False)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.add_exception_handler(PortcullisError, _known)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _routing)
    app.middleware("http")(_guarded)
    return app


async def _guarded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Headers on every answer; the last resort for what nobody foresaw."""
    try:
        response = await call_next(request)
    except Exception as error:
        # Nothing of the exception's text leaves: it may quote what was sent.
        log.error("unexpected %s in %s", type(error).__name__, request.method)  # noqa: TRY400
        response = _error(500, "internal", "the request failed; nothing was half done that is not on record")
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("cache-control", "no-store")
    return response


async def _known(request: Request, error: Exception) -> Response:
    if not isinstance(error, PortcullisError):
        raise TypeError("only errors of ours come here")
    await _on_record(request, error)
    served: Served = request.app.state.served
    extra = {"decision": error.decision.as_json()} if isinstance(error, Refused) else {}
    # A file's place is for whoever runs the service, not for who calls it.
    where = "" if error.where.startswith((os.sep, str(served.management.settings.evidence.dir))) else error.where
    response = _error(error.http_status, error.code, error.message, where, **extra)
    if isinstance(error, Unauthenticated):
        response.headers["www-authenticate"] = "Bearer"
    return response


async def _on_record(request: Request, error: PortcullisError) -> None:
    """Where a decision was asked for and none was made, the refusal is recorded. (`Refused` brings its own record; who was
    not let in was counted at the door.)"""
    principal = getattr(request.state, "principal", None)
    route = getattr(request.scope.get("route"), "path", "")
    if principal is None or isinstance(error, Refused) or not route.endswith(DECIDES):
        return
    served: Served = request.app.state.served
    try:
        actor = await served.management.commitments.ref(principal.tenant, principal.id)
    except PortcullisError:
        actor = "unresolved"
    served.refusals.add(error.code, f"{request.method} {route}", tenant=principal.tenant, actor=actor)


async def _unreadable(_request: Request, error: Exception) -> Response:
    """A parameter in the path or the query; what was sent is not quoted."""
    if not isinstance(error, RequestValidationError):
        raise TypeError("only validation errors come here")
    first = error.errors()[0]
    return _error(400, "bad_input", str(first["msg"]), ".".join(str(part) for part in first["loc"]))


async def _routing(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    if not isinstance(error, HTTPException):
        raise TypeError("only routing errors come here")
    code = {404: "not_found", 405: "method"}.get(error.status_code, "error")
    served: Served = request.app.state.served
    served.refusals.add(code, "other")
    response = _error(
        error.status_code, code, "nothing here; GET /docs lists what is" if code == "not_found" else "use another method"
    )
    response.headers.update(error.headers or {})
    return response


def _error(status: int, code: str, message: str, where: str = "", **extra: Any) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "code": code, "where": where}, **extra}, status)


async def _health() -> dict[str, str]:
    return {"status": "ok"}


async def _ready(request: Request) -> Response:
    """Whether the database and the configuration answer."""
    served: Served = request.app.state.served
    try:
        await served.management.config.refresh()
    except PortcullisError as error:
        log.warning("not ready: %s", error.message)
        return _error(503, "not_ready", error.message)
    return JSONResponse({"status": "ready"})


async def _docs(request: Request) -> HTMLResponse:
    """The routes as a page that needs no script and nothing from elsewhere; the document itself is /openapi.json."""
    rows = []
    for path, operations in sorted(request.app.openapi()["paths"].items()):
        for method, operation in operations.items():
            says = html.escape(operation.get("description", "")).replace("\n\n", "<br>")
            rows.append(f"<tr><td><b>{method.upper()}</b><td><code>{html.escape(path)}</code><td>{says}")
    style = (
        "body{font-family:system-ui,sans-serif;margin:2rem}td{padding:.3rem .8rem;vertical-align:top;border-top:1px solid #ccc}"
    )
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Portcullis API</title><style>{style}</style>'
        "<h1>Portcullis API</h1><p>Present <code>Authorization: Bearer …</code>. The whole description: "
        f'<a href="/openapi.json">/openapi.json</a>.<table>{"".join(rows)}</table></html>'
    )
