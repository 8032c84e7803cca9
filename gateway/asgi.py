"""The little of ASGI that the data path needs: a request that was read, answers in OpenAI's error shape."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from core.errors import BadInput, TooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "invalid_request_error"}
_TYPES |= {413: "invalid_request_error", 429: "rate_limit_error"}


class Disconnected(Exception):
    """The client went away before its request was whole."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The header's only value; BadInput when it was sent more than once (two readers may pick different ones)."""
    values = [value for key, value in scope["headers"] if key.lower() == name]
    if len(values) > 1:
        raise BadInput(f"the header {name.decode()} was sent {len(values)} times")
    return values[0] if values else None


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body. TooLarge as soon as it grows beyond `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise TooLarge(f"the body is larger than {limit} bytes")
        if not message.get("more_body"):
            return b"".join(parts)


async def answer(
    send: Send, status: int, body: bytes, headers: Headers = (), content_type: bytes = b"application/json"
) -> None:
    """One whole response."""
    fixed = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


def error_body(status: int, code: str, message: str, param: str | None = None) -> bytes:
    """OpenAI's error shape; `code` is the rule's id where a rule said no."""
    kind = _TYPES.get(status, "api_error")
    return json.dumps({"error": {"message": message, "type": kind, "code": code, "param": param}}).encode()
