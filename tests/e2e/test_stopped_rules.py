"""A slow rule, a rule that eats memory, a dead OPA server: at a door each is a denial that says so, and on record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from admission.ledger import QuotaLedger
from admission.service import AdmissionService
from lineage.deployments import Deployments
from policies.bundle import Bundle
from policies.check import Loaded, load_tree
from policies.confined import Confined
from policies.distribution import compile_wasm
from policies.engine import Engine
from policies.memory import Memory
from policies.opa import OpaServer
from policies.wasm import Wasm
from storage.database import Database
from tests.e2e.test_opa import Server, opa
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryConfig, MemoryModels, MemoryRecorder
from tests.unit.admission.reviews import TABLE, config, container, create, pod
from tests.unit.policies import trees

__all__ = ["opa"]
pytestmark = pytest.mark.e2e
MEGABYTE = 1024 * 1024

LOOP = """\
default checked := false

checked := true

deny contains {"path": "x", "args": {}} if {
	count(input.request.containers) == 60
	some a in input.request.containers
	some b in input.request.containers
	some c in input.request.containers
	some d in input.request.containers
	some e in input.request.containers
	a.name != b.name
	c.name != d.name
	e.name == "never"
}
"""
EATER = """\
default checked := false

checked := true

deny contains {"path": "x", "args": {}} if {
	many := input.request.containers
	count(many) == 61
	all := [concat("", [a.path, b.path, c.path, d.path]) | some a in many; some b in many; some c in many; some d in many]
	count(all) == 1
}
"""
"""Loops nested over a long array of the request: the built-ins that make long arrays are off the list."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("tree")
    root = trees.write(folder / "tree", trees.files())
    for rule, body in {"admission/loop": LOOP, "admission/eater": EATER}.items():
        trees.extra(folder / "own", rule, body)
    return load_tree(root, [folder / "own"])


@pytest.fixture(scope="module")
def module(loaded: Loaded, opa: str) -> bytes:
    return compile_wasm(loaded.bundle, opa)


@pytest.fixture
def served(opa: str, loaded: Loaded, tmp_path: Any) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(bundle: Bundle | None = None, port: int = 0) -> Server:
        folder = tmp_path / f"bundle{len(started)}"
        (bundle or loaded.bundle).write(folder)
        started.append(Server(opa, "--bundle", folder, port=port))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def door(database: Database) -> Callable[[Engine], tuple[AdmissionService, MemoryRecorder]]:
    def made(engine: Engine) -> tuple[AdmissionService, MemoryRecorder]:
        clock, recorder = FixedClock(), MemoryRecorder()
        service = AdmissionService(
            engine=engine,
            config=MemoryConfig(admission_config=config(), table=dict(TABLE)),
            models=MemoryModels(),
            recorder=recorder,
            commitments=MemoryCommitments(),
            ledger=QuotaLedger(database, clock),
            deployments=Deployments(database, clock),
            clock=clock,
            tenant="default",
        )
        return service, recorder

    return made


def review(containers: int) -> bytes:
    found = pod()
    found["spec"]["containers"] = [container(name=f"c{i}") for i in range(containers)]
    return create(found)


async def refused(service: AdmissionService, recorder: MemoryRecorder, containers: int) -> str:
    """Sends it in; the reason on record."""
    before = len(recorder.entries)
    answer = json.loads(json.dumps(await service.review(review(containers))))
    assert answer["response"]["allowed"] is False
    assert len(recorder.entries) == before + 1
    decision = recorder.entries[-1].decision
    assert decision is not None
    assert decision["allow"] is False
    return str(decision["violations"][0]["rule"])


async def allowed(service: AdmissionService, recorder: MemoryRecorder) -> bool:
    answer = await service.review(review(1))
    return bool(answer["response"]["allowed"]) and bool((recorder.entries[-1].decision or {})["allow"])


Door = Callable[[Engine], tuple[AdmissionService, MemoryRecorder]]


@pytest.mark.parametrize("name", ["embedded", "wasm", "opa"])
async def test_a_slow_rule(name: str, loaded: Loaded, module: bytes, served: Callable[..., Server], door: Door) -> None:
    made: dict[str, Callable[[], Any]] = {
        "embedded": lambda: Confined(loaded.bundle.modules, deadline_ms=500),
        "wasm": lambda: Wasm(module, deadline_ms=500),
        "opa": lambda: OpaServer(served().url, loaded.bundle, deadline_ms=500),
    }
    engine = Engine(loaded, made[name](), memory=Memory(0))
    service, recorder = door(engine)
    assert await refused(service, recorder, 60) == "engine/timeout"
    assert engine.failures["engine/timeout"] == 1
    assert await allowed(service, recorder), "the next one is judged"
    engine.close()


@pytest.mark.parametrize("name", ["embedded", "wasm"])
async def test_a_rule_that_eats_memory(name: str, loaded: Loaded, module: bytes, door: Door) -> None:
    """An OPA server's memory is its own machine's affair; at the deadline it is a slow rule."""
    made: dict[str, Callable[[], Any]] = {
        "embedded": lambda: Confined(loaded.bundle.modules, deadline_ms=30_000, max_memory=96 * MEGABYTE),
        "wasm": lambda: Wasm(module, deadline_ms=30_000, max_memory=32 * MEGABYTE),
    }
    engine = Engine(loaded, made[name](), memory=Memory(0))
    service, recorder = door(engine)
    assert await refused(service, recorder, 61) == "engine/error"
    assert "memory" in str((recorder.entries[-1].decision or {})["violations"][0]["message"])
    assert await allowed(service, recorder), "the next one is judged"
    engine.close()


async def test_a_dead_opa_server(loaded: Loaded, served: Callable[..., Server], door: Door) -> None:
    """Denied and recorded while it is gone, asked once in a while, used again without a restart when it is back."""
    server = served()
    evaluator = OpaServer(server.url, loaded.bundle, deadline_ms=2_000)
    engine = Engine(loaded, evaluator, memory=Memory(0))
    service, recorder = door(engine)
    assert await allowed(service, recorder)
    server.stop()
    for _ in range(8):
        assert await refused(service, recorder, 1) == "engine/unavailable"
    assert engine.paused
    served(port=server.port)
    evaluator._link.breaker._until = 0.0
    assert await allowed(service, recorder)
    assert not engine.paused
    engine.close()


async def test_an_opa_server_that_comes_back_with_other_rules(
    loaded: Loaded, served: Callable[..., Server], door: Door
) -> None:
    server = served()
    engine = Engine(loaded, OpaServer(server.url, loaded.bundle, deadline_ms=2_000), memory=Memory(0))
    service, recorder = door(engine)
    assert await allowed(service, recorder)
    server.stop()
    modules = {**loaded.bundle.modules, "rules/admission/more/more.rego": trees.module("admission/more", trees.SILENT_BODY)}
    served(Bundle(modules), port=server.port)
    assert [await refused(service, recorder, 1) for _ in range(2)][-1] == "engine/revision"
    assert not engine.paused, "it answers; what it says is wrong"
    engine.close()
