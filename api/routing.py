"""How routes are declared: each with its roles, its body's type and one sentence for the OpenAPI document.

Bodies are read by `core.jsonread` after the caller was checked: strict JSON, bounded, no duplicate keys, unknown fields refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from api.access import may
from core.errors import BadInput, TooLarge
from core.jsonread import loads_object
from core.names import ModelRef

MAX_BODY = 1024 * 1024
EVERYBODY = ("admin", "operator", "approver", "auditor", "service")
"""Any role at all; a caller's key without one may use models at the gateway and nothing here."""

Handler = TypeVar("Handler", bound=Callable[..., Any])
Body = TypeVar("Body", bound=BaseModel)


class Sent(BaseModel):
    """What a request's body may hold, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


async def read_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The body's bytes. TooLarge as soon as it is known to be; BadInput when its type is not JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadInput("send application/json", where="content-type")
    stated = request.headers.get("content-length", "0")
    if stated.isdigit() and int(stated) > limit:
        raise TooLarge(f"{stated} bytes; at most {limit} are read")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise TooLarge(f"at most {limit} bytes are read")
    return bytes(data)


@cache
def sent(kind: type[Body]) -> Callable[[Request], Awaitable[Body]]:
    """A dependency that gives the body as `kind`. BadInput names the first field that is wrong."""

    async def read(request: Request) -> Body:
        value = loads_object(await read_body(request), max_bytes=MAX_BODY)
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            known = " (unknown field)" if first["type"] == "extra_forbidden" else ""
            raise BadInput(f"{first['msg']}{known}", where=".".join(str(part) for part in first["loc"])) from None

    return read


class Routes:
    """A router on which every route names its roles."""

    def __init__(self, prefix: str, tag: str) -> None:
        self.router = APIRouter(prefix=prefix, tags=[tag])

    def public(self, path: str, description: str) -> Callable[[Handler], Handler]:
        """A route to read without a key, by GET and by HEAD."""

        def declare(handler: Handler) -> Handler:
            for method in ("GET", "HEAD"):
                self.router.add_api_route(
                    path, handler, methods=[method], description=description, include_in_schema=method == "GET"
                )
            return handler

        return declare

    def get(self, path: str, *roles: str, head: bool = False) -> Callable[[Handler], Handler]:
        """`head`: answered by HEAD too, under the same roles."""
        declared = [self._route(method, path, roles, None, 200) for method in (("GET", "HEAD") if head else ("GET",))]

        def declare(handler: Handler) -> Handler:
            for one in declared:
                one(handler)
            return handler

        return declare

    def post(
        self, path: str, *roles: str, body: type[BaseModel] | None = None, status: int = 200
    ) -> Callable[[Handler], Handler]:
        return self._route("POST", path, roles, body, status)

    def put(self, path: str, *roles: str, body: type[BaseModel] | None = None) -> Callable[[Handler], Handler]:
        return self._route("PUT", path, roles, body, 200)

    def delete(self, path: str, *roles: str, body: type[BaseModel] | None = None) -> Callable[[Handler], Handler]:
        return self._route("DELETE", path, roles, body, 200)

    def _route(
        self, method: str, path: str, roles: tuple[str, ...], body: type[BaseModel] | None, status: int
    ) -> Callable[[Handler], Handler]:
        if not roles:
            raise ValueError(f"{method} {path} names no roles")

        def declare(handler: Handler) -> Handler:
            self.router.add_api_route(
                path,
                handler,
                methods=[method],
                status_code=status,
                response_model=None,
                include_in_schema=method != "HEAD",
                dependencies=[Depends(may(*roles))],
                description=f"{handler.__doc__ or ''}\n\nRoles: {', '.join(roles)}.",
                openapi_extra=_described(body, roles),
            )
            return handler

        return declare


def _described(body: type[BaseModel] | None, roles: tuple[str, ...]) -> dict[str, Any]:
    """The parts of the OpenAPI operation that FastAPI cannot see, for bodies are read by us."""
    extra: dict[str, Any] = {"security": [{"key": []}], "x-roles": list(roles)}
    if body is not None:
        schema = body.model_json_schema()
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return extra


def reference(name: str, version: str) -> ModelRef:
    """`name` and `version` of a path. BadInput when they cannot name a version."""
    return ModelRef.parse(f"{name}@{version}")
