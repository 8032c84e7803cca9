"""The way to the models: one pooled client, only headers we made, bytes handed on as they arrive."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from core.errors import ConfigError, Unavailable
from core.names import ModelRef
from core.settings import Upstream

CONNECT_SECONDS = 5.0
PASSED_ON = frozenset({"content-type", "cache-control", "retry-after", "openai-processing-ms"})
"""What a client sees of an upstream's headers: no cookies, no server's name, nothing hop by hop."""


@dataclass(frozen=True, slots=True)
class Target:
    """One upstream that serves a model. `api_key` is revealed."""

    name: str
    url: str
    weight: int
    timeout_s: int
    api_key: str | None


class Routes:
    """Served name to registered version and to the upstreams behind it, from the operator's settings."""

    def __init__(self, upstreams: Sequence[Upstream], api_keys: Mapping[str, str]) -> None:
        self._refs: dict[str, ModelRef] = {}
        self._targets: dict[str, list[Target]] = {}
        for upstream in upstreams:
            target = Target(upstream.name, upstream.url, upstream.weight, upstream.timeout_s, api_keys.get(upstream.name))
            for model in upstream.models:
                known = self._refs.setdefault(model.served, model.ref)
                if known != model.ref:
                    raise ConfigError(
                        f"{model.served!r} is {known} at one upstream and {model.ref} at another", where="gateway"
                    )
                self._targets.setdefault(model.served, []).append(target)

    @property
    def served(self) -> Mapping[str, ModelRef]:
        return self._refs

    def choose(self, served: str) -> Target:
        """One of the upstreams of `served`, by weight."""
        targets = self._targets[served]
        return random.choices(targets, [target.weight for target in targets])[0]  # noqa: S311  # load, not secrets


class Pool:
    """aiohttp's client, set up for a proxy: no cookie jar, no redirects, no decompression."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
            )
        return self._session

    @asynccontextmanager
    async def post(self, target: Target, path: str, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """The upstream's response, its body not yet read. Unavailable when it cannot be reached or breaks off."""
        headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "portcullis"}
        if target.api_key is not None:
            headers["authorization"] = f"Bearer {target.api_key}"
        timeout = aiohttp.ClientTimeout(total=target.timeout_s, sock_connect=CONNECT_SECONDS)
        try:
            async with self._client().post(
                target.url + path, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the upstream {target.name} does not answer ({type(error).__name__})") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def passed_on(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in response.headers.items()
        if name.lower() in PASSED_ON
    ]
