"""The engine where an OPA server is the standard: `POST /v1/data/portcullis/DOMAIN/decision`.

The server is not trusted to have our rules:

1. Before the first decision, after any failure (another revision is one), and whenever a connection was made anew (it may
   lead to another server), its policies are read (`GET /v1/policies`) before an answer is believed: none may use a built-in
   off the list, and those below `portcullis` must be ours, text for text.
2. Every answer must come with provenance that names our bundle's revision.

Built-in errors are errors (`strict-builtin-errors`), nothing is retried, and one deadline of ours covers the whole exchange.
A server that does not answer is not asked for a while (`policies.breaker`): calls are denied at once instead of at the deadline.
The client's event loop runs in a thread of its own, so the same connections serve every thread and every loop.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from opa_client.opa_async import AsyncOpaClient

from core.decision import Domain
from core.errors import ConfigError
from policies import opa_syntax
from policies.breaker import Breaker
from policies.builtins import judge
from policies.bundle import Bundle
from policies.evaluate import EngineFailure

_NEVER = -1
_QUERY = {"provenance": "true", "strict-builtin-errors": "true"}
_SILENCE = frozenset({"engine/timeout", "engine/unavailable"})
"""Failures in which the server gave no answer at all."""
_FATAL_EVERYWHERE = frozenset({"builtin", "syntax"})
"""Objections that count against a policy outside `portcullis` too; the others are about how our own tree is laid out."""


class OpaServer:
    """`Evaluator` over an OPA server at `url` (scheme, host, port). ConfigError when the address has anything more.

    `ca` is a file with the certificates to trust instead of the system's, `token` what the server asks for.
    """

    name = "opa"

    def __init__(
        self, url: str, bundle: Bundle, *, deadline_ms: int = 1_000, ca: str | None = None, token: str | None = None
    ) -> None:
        self._link = _Link(url, bundle, deadline_ms, trust=_trust(ca), token=token)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="opa-client", daemon=True)
        self._thread.start()
        self._stop = weakref.finalize(self, _shut_down, self._loop, self._thread, self._link)

    def _submit(self, domain: Domain, document: bytes) -> Future[Any]:
        if not self._stop.alive:
            raise EngineFailure("engine/unavailable", problem="the engine has been closed")
        return asyncio.run_coroutine_threadsafe(self._link.ask(domain, document), self._loop)

    def evaluate(self, domain: Domain, document: bytes) -> Any:
        return self._submit(domain, document).result()

    async def evaluate_async(self, domain: Domain, document: bytes) -> Any:
        return await asyncio.wrap_future(self._submit(domain, document))

    @property
    def paused(self) -> bool:
        """Whether the server did not answer so often that calls are denied without asking it."""
        return self._link.breaker.paused

    def close(self) -> None:
        self._stop()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


def _shut_down(loop: asyncio.AbstractEventLoop, thread: threading.Thread, link: _Link) -> None:
    asyncio.run_coroutine_threadsafe(link.disconnect(), loop).result(timeout=5)
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join(timeout=5)


def _trust(ca: str | None) -> ssl.SSLContext | None:
    if ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # an SSLError is one
        raise ConfigError("has no certificates in PEM that can be read", where=f"policy.ca: {ca}") from error


class _Client(AsyncOpaClient):  # type: ignore[misc]  # the package has no types
    """The package's client, which also counts the connections it made, and can trust other certificates than the system's."""

    connections = 0
    trust: ssl.SSLContext | None = None

    async def _init_session(self) -> None:
        await super()._init_session()
        if self.trust is not None:
            await self.close_connection()
            connector = aiohttp.TCPConnector(ssl=self.trust)
            timeout = aiohttp.ClientTimeout(total=self.timeout)
            self._session = aiohttp.ClientSession(headers=self.headers, connector=connector, timeout=timeout)
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._count)
        trace.freeze()
        self._session.trace_configs.append(trace)

    async def _count(self, *_: object) -> None:
        self.connections += 1


class _Link:
    """The connection and what is known about the server behind it. Used inside its own loop only."""

    def __init__(self, url: str, bundle: Bundle, deadline_ms: int, *, trust: ssl.SSLContext | None, token: str | None) -> None:
        parts = urlsplit(url)
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise ConfigError("write http://HOST:PORT or https://HOST:PORT, nothing more", where="policy.url")
        self.shown = f"{parts.hostname}:{parts.port or 8181}"
        self.deadline_ms = deadline_ms
        self.revision = bundle.revision
        self.texts = sorted(bundle.modules.values())
        self.client = _Client(
            host=f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname,
            port=parts.port or 8181,
            ssl=parts.scheme == "https",
            retries=0,
            timeout=deadline_ms / 1000,
            token=token,
        )
        self.client.trust = trust
        self.connected = False
        self.verified = _NEVER
        self.verifying = asyncio.Lock()
        self.breaker = Breaker(self.shown)

    async def ask(self, domain: Domain, document: bytes) -> Any:
        """The decision document of `domain`; None where it is undefined. Raises EngineFailure, nothing else."""
        if not self.breaker.enter():
            raise EngineFailure("engine/unavailable", problem=f"the OPA server at {self.shown} did not answer for a while")
        answered: bool | None = None
        try:
            async with asyncio.timeout(self.deadline_ms / 1000):
                found = await self._ask(domain, document)
            answered = True
            return found
        except EngineFailure:
            answered, self.verified = True, _NEVER
            raise
        except Exception as error:
            self.verified = _NEVER
            failure = self._failure(error)
            answered = failure.rule not in _SILENCE
            raise failure from error
        finally:
            self.breaker.leave(answered)

    def _failure(self, error: Exception) -> EngineFailure:
        if isinstance(error, TimeoutError):
            return EngineFailure("engine/timeout", deadline_ms=self.deadline_ms)
        if isinstance(error, aiohttp.ContentTypeError):
            return EngineFailure("engine/error", problem=f"{self.shown} does not answer like an OPA server")
        if isinstance(error, aiohttp.ClientResponseError):
            return EngineFailure("engine/error", problem=f"the OPA server at {self.shown} answered {error.status}")
        if isinstance(error, (aiohttp.ClientError, OSError)):
            return EngineFailure("engine/unavailable", problem=f"no connection to the OPA server at {self.shown}")
        return EngineFailure(
            "engine/error", problem=f"{self.shown} gave an answer that cannot be read ({type(error).__name__})"
        )

    async def _ask(self, domain: Domain, document: bytes) -> Any:
        await self._ensure_verified()
        answer = await self.client.query_rule(json.loads(document), f"portcullis.{domain}", "decision", _QUERY)
        await self._ensure_verified()
        bundles = answer.get("provenance", {}).get("bundles") or {}
        found = sorted({str(bundle.get("revision")) for bundle in bundles.values()})
        if self.revision not in found:
            raise self._foreign(", ".join(found)[:200] or "no bundle with a revision")
        return answer.get("result")

    async def _ensure_verified(self) -> None:
        """Reads the server's policies, unless they were read since the last connection was made."""
        async with self.verifying:
            if not self.connected:
                await self.client.__aenter__()
                self.connected = True
            if self.verified != self.client.connections:
                connections = self.client.connections
                self._verify(await self._policies())
                self.verified = connections

    def _foreign(self, found: str) -> EngineFailure:
        return EngineFailure("engine/revision", found=found, expected=self.revision)

    async def _policies(self) -> list[Mapping[str, Any]]:
        # The client's get_policies_info drops text and syntax tree, and get_policy asks one by one, which is no snapshot.
        async with self.client._request("GET", f"{self.client.root_url}/policies") as response:
            response.raise_for_status()
            document = await response.json()
        policies: list[Mapping[str, Any]] = document["result"]
        return policies

    def _verify(self, policies: list[Mapping[str, Any]]) -> None:
        read = [(policy, opa_syntax.read(policy["ast"])) for policy in policies]
        for policy, syntax in read:
            for objection in judge(syntax, {}):
                if objection.code in _FATAL_EVERYWHERE:
                    name = str(policy.get("id", "")).rsplit("/", 1)[-1][:100]
                    raise EngineFailure("engine/builtins", problem=f"{name}: {objection.message}")
        ours = sorted(
            str(policy.get("raw", "")) for policy, syntax in read if syntax.package[:1] in {(), ("portcullis",), (None,)}
        )
        if ours != self.texts:
            raise self._foreign("other modules below `portcullis`" if ours else "no modules below `portcullis`")

    async def disconnect(self) -> None:
        await self.client.close_connection()
