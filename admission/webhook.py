"""The webhook's HTTP: `POST /validate`, `GET /healthz`, `GET /readyz`, as a small ASGI application; `GET /metrics` on its own port.

A review whose uid can be read is always answered with 200 and an AdmissionReview, for the API server reads nothing else; what
cannot be read that far gets 400 or 413.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from admission.review import MAX_BYTES
from admission.service import Outcome
from core.errors import BadInput, PortcullisError, TooLarge

log = logging.getLogger("portcullis.admission")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Door(Protocol):
    """What the webhook needs of `AdmissionService`."""

    async def outcome(self, data: bytes) -> Outcome: ...

    async def ready(self) -> None: ...


class Metrics:
    """Few series: verdicts by rule, and how long an answer took."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._verdicts = Counter(
            "portcullis_admission_decisions", "Reviews answered", ["verdict", "rule"], registry=self.registry
        )
        self._seconds = Histogram(
            "portcullis_admission_seconds",
            "Time to answer a review",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )

    def observe(self, outcome: Outcome, seconds: float) -> None:
        """`rule` is the first violation's: a rule's id from the bundle, or one of the door's own."""
        verdict = "allowed" if outcome.answer["response"]["allowed"] else "denied"
        rule = outcome.decision.code if outcome.decision else "retry"
        self._verdicts.labels(verdict, rule if verdict == "denied" else "").inc()
        self._seconds.observe(seconds)

    def unreadable(self) -> None:
        self._verdicts.labels("unreadable", "").inc()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application on the metrics' port."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["path"] == "/metrics" and scope["method"] == "GET":
            await _send(send, 200, generate_latest(self.registry), "text/plain; version=0.0.4; charset=utf-8")
        else:
            await _json(send, 404, {"error": "GET /metrics is what is served here"})


class Webhook:
    """The ASGI application on the webhook's port."""

    def __init__(self, door: Door, metrics: Metrics) -> None:
        self._door = door
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        routes = {"/validate": ("POST", self._validate), "/healthz": ("GET", self._health), "/readyz": ("GET", self._ready)}
        method, handler = routes.get(scope["path"], ("", None))
        if handler is None:
            await _json(send, 404, {"error": f"nothing here; served are {', '.join(sorted(routes))}"})
        elif scope["method"] != method:
            await _json(send, 405, {"error": f"use {method}"}, [(b"allow", method.encode())])
        else:
            await handler(scope, receive, send)

    async def _validate(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        try:
            outcome = await self._door.outcome(await _body(scope, receive))
        except BadInput as error:
            self._metrics.unreadable()
            await _json(send, error.http_status, {"error": str(error), "code": error.code})
            return
        self._metrics.observe(outcome, time.perf_counter() - started)
        await _json(send, 200, outcome.answer)

    async def _health(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await _json(send, 200, {"status": "ok"})

    async def _ready(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await self._door.ready()
        except PortcullisError as error:
            log.warning("not ready: %s", error.message)
            await _json(send, 503, {"status": "not ready", "error": error.message})
        else:
            await _json(send, 200, {"status": "ready"})


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The request's body. TooLarge as soon as it is known to be, BadInput when it is not JSON by its type or breaks off."""
    headers = {name.lower(): value for name, value in scope["headers"]}
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        raise BadInput("send the AdmissionReview as application/json", where="content-type")
    stated = headers.get(b"content-length", b"0")
    if stated.isdigit() and int(stated) > MAX_BYTES:
        raise TooLarge(f"{int(stated)} bytes; at most {MAX_BYTES} are read")
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadInput("the body broke off")
        data += message.get("body", b"")
        if len(data) > MAX_BYTES:
            raise TooLarge(f"at most {MAX_BYTES} bytes are read")
        if not message.get("more_body", False):
            return bytes(data)


async def _json(send: Send, status: int, value: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await _send(send, status, json.dumps(value).encode(), "application/json", headers)


async def _send(send: Send, status: int, body: bytes, kind: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    fixed = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fixed + (headers or [])})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
