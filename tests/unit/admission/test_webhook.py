from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from admission.certificates import ensure
from admission.review import MAX_BYTES
from admission.webhook import Metrics, Webhook
from cli.serving import Listener, serve
from core.errors import Unavailable
from core.settings import Tls
from tests.unit.admission.conftest import ServiceMaker
from tests.unit.admission.reviews import create, pod

JSON = {"content-type": "application/json"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def client(make: ServiceMaker, metrics: Metrics) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(Webhook(make(), metrics)), base_url="https://door", headers=JSON)


async def test_reviews_are_answered(client: httpx.AsyncClient) -> None:
    allowed = await client.post("/validate?timeout=10s", content=create(pod(1), uid="r"))
    assert (allowed.status_code, allowed.json()["response"]["uid"], allowed.json()["response"]["allowed"]) == (200, "r", True)
    denied = await client.post("/validate", content=create(pod(9, name="q")))
    assert (denied.status_code, denied.json()["response"]["allowed"]) == (200, False)
    wrong = await client.post("/validate", content=create(pod("x", name="z")))
    assert (wrong.status_code, wrong.json()["response"]["status"]["code"]) == (200, 400)


BAD_REQUESTS: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "not JSON": (b"{", 400),
    "no uid": (b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}', 400),
    "twice the same key": (b'{"a":1,"a":2}', 400),
    "deep": (b"[" * 10_000 + b"]" * 10_000, 413),
    "large": (b" " * (MAX_BYTES + 1), 413),
}


@pytest.mark.parametrize(("data", "status"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
async def test_what_has_nobody_to_answer(data: bytes, status: int, client: httpx.AsyncClient) -> None:
    """failure-cases/admission.md 38: an error, and the process lives."""
    assert (await client.post("/validate", content=data)).status_code == status
    assert (await client.get("/healthz")).status_code == 200


async def test_a_body_without_end_is_cut_off(client: httpx.AsyncClient) -> None:
    async def endless() -> Any:
        while True:
            yield b" " * 2**16

    assert (await client.post("/validate", content=endless())).status_code == 413


async def test_routes(client: httpx.AsyncClient) -> None:
    assert (await client.get("/validate")).status_code == 405
    assert (await client.post("/mutate", content=create(pod(1)))).status_code == 404
    assert (await client.post("/validate", content=create(pod(1)), headers={"content-type": "text/plain"})).status_code == 400
    assert (await client.get("/readyz")).json() == {"status": "ready"}


class GoneDoor:
    async def outcome(self, data: bytes) -> Any:
        raise AssertionError

    async def ready(self) -> None:
        raise Unavailable("the database does not answer")


async def test_not_ready_without_a_database() -> None:
    transport = httpx.ASGITransport(Webhook(GoneDoor(), Metrics()))
    async with httpx.AsyncClient(transport=transport, base_url="https://door") as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200


async def test_metrics_count_verdicts_by_rule(client: httpx.AsyncClient, metrics: Metrics) -> None:
    for data in (create(pod(1)), create(pod(9, name="q")), b"{"):
        await client.post("/validate", content=data)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(metrics), base_url="http://door") as other:
        text = (await other.get("/metrics")).text
        assert (await other.get("/")).status_code == 404
    assert 'portcullis_admission_decisions_total{rule="",verdict="allowed"} 1.0' in text
    assert 'portcullis_admission_decisions_total{rule="admission/gpu-quota",verdict="denied"} 1.0' in text
    assert 'portcullis_admission_decisions_total{rule="",verdict="unreadable"} 1.0' in text


def another_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def answers(call: Callable[[], Any]) -> Any:
    """Asks until the server listens."""
    for _ in range(200):
        try:
            return await call()
        except httpx.ConnectError:
            await asyncio.sleep(0.02)
    raise AssertionError("the server did not start")


async def test_over_tls_with_our_own_authority(make: ServiceMaker, tmp_path: Path, free_port: int) -> None:
    import time

    files = ensure(tmp_path, [], now_unix=int(time.time()))
    stop = asyncio.Event()
    metrics_port = another_port()
    metrics = Metrics()
    webhook = Listener(Webhook(make(), metrics), "127.0.0.1", free_port, Tls(cert=str(files.cert), key=str(files.key)))
    task = asyncio.create_task(serve([webhook, Listener(metrics, "127.0.0.1", metrics_port)], stop=stop))
    context = ssl.create_default_context(cafile=str(files.ca))
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        url = f"https://127.0.0.1:{free_port}"
        assert (await answers(lambda: client.get(f"{url}/healthz"))).status_code == 200
        reply = await client.post(f"{url}/validate", content=create(pod(1)), headers=JSON)
        assert json.loads(reply.text)["response"]["allowed"] is True
        assert "verdict" in (await answers(lambda: client.get(f"http://127.0.0.1:{metrics_port}/metrics"))).text
    stop.set()
    await task
