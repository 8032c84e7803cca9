"""The gateway as a raw ASGI application: routes, refusals, and the byte path of answers and streams.

    POST /v1/chat/completions     GET /v1/models     GET /v1/models/{id}

Anything else is 404 and recorded. The order is: identity, limit, reading, facts, decision, record, upstream, outcome.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol

import aiohttp

from core.decision import Decision
from core.errors import BadInput, NotFound, PortcullisError, Unauthenticated, Unavailable
from core.names import ModelRef
from core.principal import Principal
from evidence.refusals import Refusals
from gateway import events
from gateway.asgi import Disconnected, Receive, Scope, Send, answer, error_body, header, read_body
from gateway.governor import Authenticator, Governor, Outcome
from gateway.limits import Verdict
from gateway.log import MAX_KEPT_BYTES
from gateway.read import Call, read_call, read_purpose
from gateway.telemetry import Metrics
from gateway.upstream import Pool, Routes, passed_on
from redaction.record import MAX_COUNT

log = logging.getLogger("portcullis.gateway")

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Answers that are not streams are held until their outcome is on record, so they are bounded."""


class Sink(Protocol):
    """The inference log; never blocks and never raises."""

    @property
    def keeps_content(self) -> bool: ...

    def offer(self, record: Mapping[str, Any]) -> None: ...


class Gateway:
    def __init__(
        self,
        *,
        identity: Authenticator,
        bearer: Any,
        governor: Governor,
        routes: Routes,
        pool: Pool,
        refusals: Refusals,
        sink: Sink,
        metrics: Metrics,
        max_body_bytes: int,
    ) -> None:
        self.identity = identity
        self.bearer = bearer
        self.governor = governor
        self.routes = routes
        self.pool = pool
        self.refusals = refusals
        self.sink = sink
        self.metrics = metrics
        self.max_body_bytes = max_body_bytes

    async def ready(self) -> None:
        await self.governor.ready()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        known = path in {CHAT, MODELS} or (path.startswith(MODELS + "/") and path.count("/") == 3)
        route = MODELS if known and path != CHAT else CHAT if known else "other"
        # A path with two spellings (percent escapes, an absolute form) is not one of ours: CVE-2026-49468's class.
        plain = scope.get("raw_path") in (None, path.encode())
        request = _Request(self, scope, receive, send, route)
        try:
            if not known or not plain:
                await request.refuse(404, "not_found", f"served here: POST {CHAT}, GET {MODELS}, GET {MODELS}/ID")
            elif path == CHAT:
                await request.chat() if scope["method"] == "POST" else await request.refuse(405, "method", "use POST")
            elif scope["method"] == "GET":
                await request.models(path.removeprefix(MODELS).removeprefix("/"))
            else:
                await request.refuse(405, "method", "use GET")
        except Disconnected:
            self.refusals.add("disconnected", route)
        except PortcullisError as error:
            await request.fail(error)
        except Exception as error:
            # The last resort of a door: nothing of the exception's text leaves, and the answer is a recorded refusal.
            log.error("unexpected %s in %s", type(error).__name__, route)  # noqa: TRY400  # a traceback may hold a prompt
            await request.refuse(500, "internal", "the gateway failed; the call was not made")


class _Request:
    """One request on its way through; remembers whether an answer was begun."""

    def __init__(self, gateway: Gateway, scope: Scope, receive: Receive, send: Send, route: str) -> None:
        self.g = gateway
        self.scope = scope
        self.receive = receive
        self._send = send
        self.route = route
        self.begun = False
        self.principal: Principal | None = None
        self.headers: list[tuple[bytes, bytes]] = []

    async def send(self, message: Any) -> None:
        self.begun = True
        await self._send(message)

    # --- refusals ------------------------------------------------------------------------------------------------

    async def refuse(self, status: int, code: str, message: str, param: str | None = None, *, recorded: bool = False) -> None:
        """An error answer; counted for the record unless a decision already stands there."""
        if not recorded:
            actor = await self.actor()
            self.g.refusals.add(code, self.route, tenant=self.principal.tenant if self.principal else None, actor=actor)
        self.g.metrics.answers.labels(self.route, str(status), code).inc()
        if not self.begun:
            await answer(self.send, status, error_body(status, code, message, param), self.headers)

    async def actor(self) -> str:
        if self.principal is None:
            return "anonymous"
        try:
            return await self.g.governor.ref_of(self.principal)
        except PortcullisError:
            return "unresolved"

    async def fail(self, error: PortcullisError) -> None:
        if isinstance(error, Unauthenticated):
            self.headers.append((b"www-authenticate", b"Bearer"))
        await self.refuse(error.http_status, error.code, error.message, error.where or None)

    # --- the order -----------------------------------------------------------------------------------------------

    async def _enter(self) -> Principal:
        """Identity. Raises Unauthenticated."""
        token = self.g.bearer(header(self.scope, b"authorization"))
        self.principal = await self.g.identity.authenticate(token)
        return self.principal

    async def _within_limit(self, principal: Principal) -> bool:
        verdict: Verdict = await self.g.governor.limit(principal)
        self.headers += verdict.headers()
        if not verdict.allowed:
            message = f"{verdict.limit} requests a minute are allowed for this key; try again in {verdict.retry_after} s"
            await self.refuse(429, "rate_limit_exceeded", message)
        return verdict.allowed

    async def chat(self) -> None:
        started = time.perf_counter()
        principal = await self._enter()
        if not await self._within_limit(principal):
            return
        body = await read_body(self.receive, self.g.max_body_bytes)
        call = read_call(
            body,
            query=self.scope["query_string"],
            purpose=header(self.scope, b"x-portcullis-purpose"),
            max_bytes=self.g.max_body_bytes,
        )
        ref = self.g.routes.served.get(call.served)
        if ref is None:
            raise NotFound("no such model here, or not for you", where="model")
        decision, document = await self.g.governor.decide(principal, CHAT, ref, call.purpose)
        await self.g.governor.record_intent(principal, CHAT, ref, decision, document)
        self.headers.append((b"x-portcullis-decision-id", decision.decision_id.encode()))
        self.g.metrics.governed.observe(time.perf_counter() - started)
        if not decision.allow:
            await self.refuse(403, decision.code or "denied", decision.explanation or "denied", recorded=True)
            return
        self.headers += _obliged(decision)
        await _Exchange(self, principal, call, ref, decision).run()

    async def models(self, wanted: str) -> None:
        """Only what this caller may use, by the same policy (envoyproxy/ai-gateway#2452, netbird#7154)."""
        principal = await self._enter()
        if not await self._within_limit(principal):
            return
        found = []
        for served, ref in self.g.routes.served.items():
            if wanted in ("", served):
                # A purpose is stated per call, so a model that asks for one is not listed without the header.
                decision, _ = await self.g.governor.decide(principal, MODELS, ref, self._purpose())
                if decision.allow:
                    found.append({"id": served, "object": "model", "created": 0, "owned_by": principal.tenant})
        if wanted and not found:
            raise NotFound("no such model here, or not for you", where="model")
        shown: Any = found[0] if wanted else {"object": "list", "data": found}
        self.g.metrics.answers.labels(MODELS, "200", "").inc()
        await answer(self.send, 200, json.dumps(shown).encode(), self.headers)

    def _purpose(self) -> str | None:
        return read_purpose(header(self.scope, b"x-portcullis-purpose"))


class _Exchange:
    """The upstream call of one allowed request: hand the bytes on, measure, record the outcome, offer the log record."""

    def __init__(self, request: _Request, principal: Principal, call: Call, ref: ModelRef, decision: Decision) -> None:
        self.request = request
        self.g = request.g
        self.principal = principal
        self.call = call
        self.ref = ref
        self.decision = decision
        self.status = 502
        self.ended = "failed"
        self.digest = hashlib.sha256()
        self.size = 0
        self.tail = b""
        self.usage: dict[str, int] = {}
        self.log_body: Any = None
        self.kept = bytearray()
        """A stream's bytes, up to MAX_KEPT_BYTES, where the log's policy wants its text."""

    async def run(self) -> None:
        limit = self.decision.obligations.get("max_tokens")
        target = self.g.routes.choose(self.call.served)
        whole: bytes | None = None
        headers: list[tuple[bytes, bytes]] = []
        try:
            async with self.g.pool.post(target, CHAT, self.call.forward(limit if isinstance(limit, int) else None)) as response:
                self.status = response.status
                headers = passed_on(response)
                if response.content_type == "text/event-stream":
                    await self._stream(response, headers)
                else:
                    whole = await self._whole(response)
        finally:
            await self._settle(whole_answer=whole is not None)
        if whole is not None:
            await self._answer(whole, headers)

    async def _stream(self, response: aiohttp.ClientResponse, headers: list[tuple[bytes, bytes]]) -> None:
        """Each chunk leaves as it arrives; nothing is held back."""
        gone = asyncio.ensure_future(_disconnected(self.request.receive))
        try:
            start = {"type": "http.response.start", "status": self.status, "headers": [*headers, *self.request.headers]}
            await self.request.send(start)
            async for chunk in response.content.iter_any():
                if gone.done():
                    self.ended = "disconnected"
                    return
                self._seen(chunk)
                if self.g.sink.keeps_content and self.size <= MAX_KEPT_BYTES:
                    self.kept += chunk
                await self.request.send({"type": "http.response.body", "body": chunk, "more_body": True})
            self.ended = "complete"
        except OSError:
            self.ended = "disconnected"
        finally:
            gone.cancel()

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        parts = []
        async for chunk in response.content.iter_any():
            self._seen(chunk)
            parts.append(chunk)
            if self.size > MAX_ANSWER_BYTES:
                raise Unavailable(f"the upstream's answer is larger than {MAX_ANSWER_BYTES} bytes")
        body = b"".join(parts)
        self.ended = "complete"
        try:
            self.log_body = json.loads(body)
        except (ValueError, RecursionError):
            self.log_body = {"unreadable": True, "bytes": len(body)}
        if isinstance(self.log_body, dict):
            self._count(self.log_body.get("usage"))
        return body

    def _seen(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.digest.update(chunk)
        self.tail = (self.tail + chunk)[-4096:]

    def _count(self, usage: Any) -> None:
        if isinstance(usage, Mapping):
            for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
                value = usage.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
                    self.usage[name] = value

    def _usage_of_stream(self) -> None:
        """The last event that has a usage, where the upstream sends one (`stream_options.include_usage`)."""
        for message in reversed(list(events.messages(self.tail))):
            if isinstance(message, Mapping) and message.get("usage"):
                self._count(message["usage"])
                return

    async def _settle(self, *, whole_answer: bool) -> None:
        """The outcome on record, then the log. A whole answer is not given without its record; a stream that is out is counted."""
        if not whole_answer:
            self._usage_of_stream()
        outcome = Outcome(self.status, self.ended, self.size, "sha256:" + self.digest.hexdigest(), self.usage)
        try:
            await asyncio.shield(self.g.governor.record_outcome(self.principal, self.ref, self.decision, outcome))
        except PortcullisError:
            self.g.metrics.unrecorded.inc()
            raise
        finally:
            await self._log(outcome)
        if self.request.begun and self.ended == "complete":
            await self.request.send({"type": "http.response.body", "body": b"", "more_body": False})
        self.g.metrics.answers.labels(CHAT, str(self.status), "").inc()

    async def _log(self, outcome: Outcome) -> None:
        record = {
            "id": self.decision.decision_id,
            "time": int(time.time()),
            "tenant": self.principal.tenant,
            "caller": await self.request.actor(),
            "model": str(self.ref),
            "served": self.call.served,
            "route": CHAT,
            "status": outcome.status,
            "stream": self.call.stream,
            "ended": outcome.ended,
            "usage": dict(outcome.usage),
            "bytes": self.call.size + self.size,
            "request": dict(self.call.body),
            "response": events.streamed(bytes(self.kept)) if self.kept else self.log_body,
        }
        self.g.sink.offer(record)

    async def _answer(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        start = {"type": "http.response.start", "status": self.status}
        length = (b"content-length", str(len(body)).encode())
        await self.request.send({**start, "headers": [*headers, length, *self.request.headers]})
        await self.request.send({"type": "http.response.body", "body": body})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _obliged(decision: Decision) -> list[tuple[bytes, bytes]]:
    """Headers that the decision obliges us to send; names and values that HTTP cannot carry make the answer an error."""
    found = []
    headers = decision.obligations.get("headers")
    for name, value in (headers or {}).items() if isinstance(headers, Mapping) else ():
        if not all(c.isascii() and (c.isalnum() or c == "-") for c in name) or any(c in value for c in "\r\n\0"):
            raise BadInput(
                "an obligation's header cannot be sent; correct obligations in the configuration", where="obligations"
            )
        found.append((name.lower().encode(), value.encode("latin-1", "replace")))
    return found
