"""The gateway over real sockets: refusals, the byte path, and the record before the call."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from core.decision import Violation
from tests.unit.gateway.conftest import CHUNKS, Rig

ASK: dict[str, Any] = {"model": "llama-3", "messages": [{"role": "user", "content": "hi"}]}

BAD_BODIES: dict[str, tuple[Any, int]] = {
    "not JSON": (b"{", 400),
    "not an object": ([], 400),
    "two models": (b'{"model":"llama-3","model":"b","messages":[{}]}', 400),
    "a case variant of model": ({**ASK, "Model": "b"}, 400),
    "no model": ({"messages": ASK["messages"]}, 400),
    "a list of models": ({**ASK, "model": ["llama-3"]}, 400),
    "no messages": ({"model": "llama-3"}, 400),
    "stream as text": ({**ASK, "stream": "yes"}, 400),
    "max_tokens below one": ({**ASK, "max_tokens": 0}, 400),
    "the upstream chosen": ({**ASK, "api_base": "http://169.254.169.254"}, 400),
    "an upstream key": ({**ASK, "API_KEY": "x"}, 400),
    "nested deeply": (b'{"model":"llama-3","messages":' + b"[" * 200 + b"]" * 200 + b"}", 413),
    "too large": ({**ASK, "user": "x" * 20_000}, 413),
    "a number past all range": (b'{"model": "llama-3", "messages": [{}], "temperature": 1e999}', 400),
    "an unknown model": ({**ASK, "model": ".*"}, 404),
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_bad_bodies_are_refused_and_recorded(rig: Rig, name: str) -> None:
    body, status = BAD_BODIES[name]
    async with rig.post(body) as response:
        assert response.status == status
        error = (await response.json())["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert rig.seen == []
    await rig.refusals.flush()
    assert rig.recorder.entries[-1].kind == "access"


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}, {"authorization": ""}]
)
async def test_nobody_is_401_on_every_route(rig: Rig, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/models/llama-3")):
        async with rig.client.request(method, rig.url + path, headers=headers, data=b"{}") as response:
            assert response.status == 401
            assert (await response.json())["error"]["code"] == "unauthenticated"
    await rig.refusals.flush()
    assert sum(entry.details["count"] for entry in rig.recorder.entries) == 3


@pytest.mark.parametrize(
    "path", ["/v1/completions", "/", "/v1/chat/completions/", "//v1/chat/completions", "/v1/proxy/x", "/v1/chat%2fcompletions"]
)
async def test_undeclared_routes_do_not_exist(rig: Rig, path: str) -> None:
    async with rig.post(ASK, path=path) as response:
        assert response.status == 404
    assert rig.seen == []
    await rig.refusals.flush()
    assert rig.recorder.entries[-1].details["code"] == "not_found"


async def test_a_query_cannot_choose_the_model(rig: Rig) -> None:
    async with rig.post(ASK, path="/v1/chat/completions?model=other") as response:
        assert response.status == 400
    assert rig.seen == []


async def test_a_denial_names_the_rule_and_reaches_no_upstream(rig: Rig) -> None:
    rig.engine.violations = (Violation("gateway/model-access", "enforce", "model", {}, message="no grant"),)
    async with rig.post(ASK) as response:
        assert response.status == 403
        assert (await response.json())["error"]["code"] == "gateway/model-access"
        assert response.headers["x-portcullis-decision-id"]
    assert rig.seen == []
    assert [entry.kind for entry in rig.recorder.entries] == ["inference.intent"]


async def test_an_answer_comes_whole_and_is_recorded_twice(rig: Rig) -> None:
    async with rig.post(ASK) as response:
        assert response.status == 200
        assert (await response.json())["choices"][0]["message"]["content"] == "Hello"
        assert "set-cookie" not in response.headers
        assert "x-ratelimit-remaining-requests" in response.headers
    kinds = [entry.kind for entry in rig.recorder.entries]
    assert kinds == ["inference.intent", "inference.outcome"]
    assert rig.recorder.entries[1].details["total_tokens"] == 5
    assert rig.headers_seen[0]["Authorization"] == "Bearer upstream-secret"


async def test_a_stream_arrives_before_the_upstream_has_finished(rig: Rig) -> None:
    rig.gate.clear()
    async with rig.post({**ASK, "stream": True}) as response:
        first = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)
        assert json.loads(first[6:]) == CHUNKS[0]
        rig.gate.set()
        rest = await response.content.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert rig.recorder.entries[-1].details["completion_tokens"] == 2
    assert rig.recorder.entries[-1].details["ended"] == "complete"


async def test_without_a_record_there_is_no_call(rig: Rig) -> None:
    rig.recorder.broken = True
    async with rig.post(ASK) as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "evidence_unavailable"
    assert rig.seen == []


async def test_the_prompt_is_in_no_record_and_no_policy_input(rig: Rig) -> None:
    async with rig.post({**ASK, "messages": [{"role": "user", "content": "canary-prompt"}]}) as response:
        await response.read()
    assert "canary-prompt" not in repr(rig.recorder.entries) + repr(rig.engine.inputs)
    assert "canary-prompt" in repr(rig.sink.records), "the redactor gets the raw record"


async def test_the_limit_is_exact_under_parallel_calls(rig: Rig) -> None:
    rig.config.rpm = 10

    async def call() -> int:
        async with rig.post(ASK) as response:
            if response.status == 429:
                assert int(response.headers["retry-after"]) >= 1
                assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
            return response.status

    statuses = await asyncio.gather(*(call() for _ in range(40)))
    assert statuses.count(200) == 10
    assert statuses.count(429) == 30


async def test_an_upstream_that_is_gone_is_503_and_recorded(rig: Rig, free_port: int) -> None:
    from core.settings import Upstream
    from gateway.app import Gateway
    from gateway.upstream import Pool, Routes
    from tests.unit.gateway.conftest import OneKey, served

    gone = {"name": "gone", "url": f"http://127.0.0.1:{free_port}", "models": [{"served": "llama-3", "model": "llama-3@7"}]}
    from gateway.governor import Governor
    from gateway.limits import RequestLimiter
    from identity.bearer import bearer
    from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryModels

    governor = Governor(
        engine=rig.engine,
        models=MemoryModels(),
        config=rig.config,
        recorder=rig.recorder,
        commitments=MemoryCommitments(),
        clock=FixedClock(),
        limiter=RequestLimiter(),
    )
    pool = Pool()
    app = Gateway(
        identity=OneKey(),
        bearer=bearer,
        governor=governor,
        routes=Routes([Upstream.model_validate(gone)], {}),
        pool=pool,
        refusals=rig.refusals,
        sink=rig.sink,
        metrics=rig.metrics,
        max_body_bytes=10_000,
    )
    headers = {"authorization": "Bearer token-of-the-tests"}
    async with served(app) as url, rig.client.post(url + "/v1/chat/completions", json=ASK, headers=headers) as response:
        assert response.status == 503
    await pool.close()
    assert rig.recorder.entries[-1].kind == "inference.outcome"
    assert rig.recorder.entries[-1].details["ended"] == "failed"


async def test_models_lists_only_what_the_policy_allows(rig: Rig) -> None:
    headers = {"authorization": "Bearer token-of-the-tests"}
    async with rig.client.get(rig.url + "/v1/models", headers=headers) as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["llama-3"]
    rig.engine.violations = (Violation("gateway/model-access", "enforce", "model", {}),)
    async with rig.client.get(rig.url + "/v1/models", headers=headers) as response:
        assert (await response.json())["data"] == []
    async with rig.client.get(rig.url + "/v1/models/llama-3", headers=headers) as response:
        assert response.status == 404


async def test_two_authorization_headers_are_refused(rig: Rig) -> None:
    port = int(rig.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-of-the-tests\r\n"
        b"authorization: Bearer other\r\nConnection: close\r\n\r\n"
    )
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400")


async def test_a_client_that_leaves_is_recorded(rig: Rig) -> None:
    rig.gate.clear()
    async with aiohttp.ClientSession() as client:
        headers = {"authorization": "Bearer token-of-the-tests"}
        response = await client.post(rig.url + "/v1/chat/completions", json={**ASK, "stream": True}, headers=headers)
        await response.content.readuntil(b"\n\n")
        response.close()
    rig.gate.set()
    async with asyncio.timeout(5):
        while rig.recorder.entries[-1].kind != "inference.outcome":
            await asyncio.sleep(0.01)
    assert rig.recorder.entries[-1].details["response_bytes"] > 0
