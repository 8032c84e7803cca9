"""A gateway on a real socket, in front of a real upstream, with the core's ports in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import uvicorn
from aiohttp import web

from core.errors import Unauthenticated
from core.inputs import CardFact, ModelFact
from core.principal import Principal
from core.settings import Upstream
from evidence.refusals import Refusals
from gateway.app import Gateway
from gateway.governor import Governor
from gateway.limits import RequestLimiter
from gateway.telemetry import Metrics
from gateway.upstream import Pool, Routes
from identity.bearer import bearer
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryConfig, MemoryModels, MemoryRecorder, ScriptedEngine

TOKEN = "token-of-the-tests"
CHUNKS = [
    {"choices": [{"delta": {"content": "Hel"}}]},
    {"choices": [{"delta": {"content": "lo"}}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
]


class OneKey:
    async def authenticate(self, token: str) -> Principal:
        if token != TOKEN:
            raise Unauthenticated("the API key is not valid")
        return Principal("key:K1", "caller", "acme", team="vision", key_id="K1")


@dataclass
class MemorySink:
    keeps_content: bool = False
    records: list[Mapping[str, Any]] = field(default_factory=list)

    def offer(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)


@dataclass
class Rig:
    app: Gateway
    url: str
    client: aiohttp.ClientSession
    recorder: MemoryRecorder
    engine: ScriptedEngine
    config: MemoryConfig
    sink: MemorySink
    refusals: Refusals
    metrics: Metrics
    seen: list[dict[str, Any]]
    headers_seen: list[dict[str, str]]
    gate: asyncio.Event
    chunks: list[dict[str, Any]]
    """What the upstream streams; a test may put in others."""
    whole: dict[str, Any]

    def post(self, body: Any, *, token: str | None = TOKEN, path: str = "/v1/chat/completions", **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **headers} | ({"authorization": f"Bearer {token}"} if token else {})
        return self.client.post(self.url + path, data=data, headers=sent)


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    config = uvicorn.Config(app, port=0, lifespan="off", log_level="critical", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


@contextlib.asynccontextmanager
async def upstream(
    seen: list[dict[str, Any]],
    headers_seen: list[dict[str, str]],
    gate: asyncio.Event,
    chunks: list[dict[str, Any]],
    whole: dict[str, Any],
) -> AsyncIterator[str]:
    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        seen.append(body)
        headers_seen.append(dict(request.headers))
        if not body.get("stream"):
            return web.json_response(whole, headers={"set-cookie": "a=b"})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for index, chunk in enumerate(chunks):
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
            if index == 0:
                await gate.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    seen: list[dict[str, Any]] = []
    headers_seen: list[dict[str, str]] = []
    gate = asyncio.Event()
    gate.set()
    chunks = list(CHUNKS)
    whole = {"choices": [{"message": {"content": "Hello"}}], "usage": {"total_tokens": 5}}
    recorder, engine, config, sink, metrics = MemoryRecorder(), ScriptedEngine(), MemoryConfig(), MemorySink(), Metrics()
    fact = ModelFact(name="llama-3", version="7", tenant="acme", author="ref:a", card=CardFact(complete=True))
    governor = Governor(
        engine=engine,
        models=MemoryModels({("acme", "llama-3@7"): fact}),
        config=config,
        recorder=recorder,
        commitments=MemoryCommitments(),
        clock=FixedClock(),
        limiter=RequestLimiter(),
    )
    refusals = Refusals(recorder, "acme")
    pool = Pool()
    async with upstream(seen, headers_seen, gate, chunks, whole) as address:
        settings = [{"name": "a", "url": address, "models": [{"served": "llama-3", "model": "llama-3@7"}]}]
        routes = Routes([Upstream.model_validate(one) for one in settings], {"a": "upstream-secret"})
        app = Gateway(
            identity=OneKey(),
            bearer=bearer,
            governor=governor,
            routes=routes,
            pool=pool,
            refusals=refusals,
            sink=sink,
            metrics=metrics,
            max_body_bytes=10_000,
        )
        async with served(app) as url, aiohttp.ClientSession() as client:
            yield Rig(
                app, url, client, recorder, engine, config, sink, refusals, metrics, seen, headers_seen, gate, chunks, whole
            )
        await pool.close()
