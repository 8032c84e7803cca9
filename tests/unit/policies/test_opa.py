"""The OPA engine against a server that misbehaves on purpose; the real one is in tests/e2e/test_opa.py."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from core.decision import MANDATORY
from core.errors import ConfigError
from policies import opa_syntax
from policies.breaker import FAILURES
from policies.bundle import Bundle
from policies.check import Loaded, load_tree
from policies.engine import Engine
from policies.memory import Memory
from policies.opa import OpaServer
from tests.unit.policies import trees

ALLOWED: dict[str, Any] = {
    "allow": True, "evaluated": list(MANDATORY["admission"]), "grants": [], "violations": [], "warnings": [], "obligations": {},
}  # fmt: skip


def _var(name: str) -> dict[str, Any]:
    return {"type": "var", "value": name}


def _text(name: str) -> dict[str, Any]:
    return {"type": "string", "value": name}


def _ref(*names: str) -> dict[str, Any]:
    return {"type": "ref", "value": [_var(names[0]), *(_text(name) for name in names[1:])]}


def _ast(package: list[str], *terms: Any) -> dict[str, Any]:
    body = [{"index": i, "terms": term} for i, term in enumerate(terms)]
    head = {"name": "x", "ref": [_var("x")], "value": {"type": "boolean", "value": True}}
    return {"package": {"path": [_var("data"), *(_text(part) for part in package)]}, "rules": [{"head": head, "body": body}]}


def _policy(name: str, raw: str, package: list[str], *terms: Any) -> dict[str, Any]:
    return {"id": name, "raw": raw, "ast": _ast(package, *terms)}


class FakeOpa:
    """Says what it is told: `policies`, `answer`, `status`, a `delay` in seconds, or a body that is no JSON."""

    def __init__(self, bundle: Bundle) -> None:
        self.policies = [_policy(path, text, ["portcullis", path]) for path, text in bundle.modules.items()]
        self.answer: dict[str, Any] = {
            "provenance": {"version": "1.22.0", "bundles": {"/b": {"revision": bundle.revision}}},
            "result": copy.deepcopy(ALLOWED),
        }
        self.status = 200
        self.delay = 0.0
        self.text: str | None = None
        self.queries: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.reads = 0
        self.peers: set[Any] = set()
        self.url = ""

    async def _policies(self, request: web.Request) -> web.Response:
        self.reads += 1
        return web.json_response({"result": self.policies})

    async def _decision(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        self.queries.append(dict(request.query))
        self.bodies.append(await request.json())
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.text is not None:
            return web.Response(text=self.text, content_type="application/json", status=self.status)
        return web.json_response(self.answer, status=self.status)

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/v1/policies", self._policies)
        app.router.add_post("/v1/data/portcullis/admission/decision", self._decision)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return runner


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return load_tree(trees.write(tmp_path, trees.files()))


@pytest.fixture
async def fake(loaded: Loaded) -> AsyncIterator[FakeOpa]:
    server = FakeOpa(loaded.bundle)
    runner = await server.start()
    yield server
    await runner.cleanup()


@pytest.fixture
async def engine(loaded: Loaded, fake: FakeOpa) -> AsyncIterator[Engine]:
    made = Engine(loaded, OpaServer(fake.url, loaded.bundle, deadline_ms=500), memory=Memory(0))
    yield made
    made.close()


async def test_our_server_is_believed_and_asked_strictly(engine: Engine, fake: FakeOpa) -> None:
    decision = await engine.decide_async("admission", trees.admission_input())
    assert decision.allow, decision.reason
    assert decision.engine == "opa"
    assert fake.queries == [{"provenance": "true", "strict-builtin-errors": "true"}]
    assert fake.bodies == [{"input": trees.admission_input()}]
    reads = fake.reads
    assert (await asyncio.to_thread(engine.decide, "admission", trees.admission_input())).allow
    assert (await engine.decide_async("admission", trees.admission_input())).allow
    assert fake.reads == reads, "policies are not read again while connection and revision stay"


def _other_revision(fake: FakeOpa) -> None:
    fake.answer["provenance"]["bundles"]["/b"]["revision"] = "sha256:other"


def _no_bundle(fake: FakeOpa) -> None:
    fake.answer["provenance"].pop("bundles")


def _no_provenance(fake: FakeOpa) -> None:
    fake.answer.pop("provenance")


def _undefined(fake: FakeOpa) -> None:
    fake.answer.pop("result")


def _true(fake: FakeOpa) -> None:
    fake.answer["result"] = True


def _text_for_true(fake: FakeOpa) -> None:
    fake.answer["result"]["allow"] = "true"


def _no_json(fake: FakeOpa) -> None:
    fake.text = "{"


def _error(fake: FakeOpa) -> None:
    fake.status = 500


def _slow(fake: FakeOpa) -> None:
    fake.delay = 1


def _no_policies(fake: FakeOpa) -> None:
    fake.policies = []


def _one_more(fake: FakeOpa) -> None:
    fake.policies.append(_policy("x", "package portcullis.x\n\nx := 1\n", ["portcullis", "x"]))


def _one_less(fake: FakeOpa) -> None:
    fake.policies.pop()


def _one_other(fake: FakeOpa) -> None:
    fake.policies[0]["raw"] += "\n"


def _in_the_root(fake: FakeOpa) -> None:
    fake.policies.append(_policy("x", "package portcullis\n\nx := 1\n", ["portcullis"]))


def _reaches_out(fake: FakeOpa) -> None:
    fake.policies.append(_policy("x", "package other\n", ["other"], [_ref("http", "send"), {"type": "object", "value": []}]))


def _divides(fake: FakeOpa) -> None:
    one = {"type": "number", "value": 1}
    fake.policies.append(_policy("x", "package other\n", ["other"], {"type": "call", "value": [_ref("div"), one, one]}))


def _new_construct(fake: FakeOpa) -> None:
    fake.policies.append(_policy("x", "package other\n", ["other"], {"type": "templatestring", "value": {"parts": []}}))


def _unreadable(fake: FakeOpa) -> None:
    fake.policies.append({"id": "x", "raw": "", "ast": {"package": {"path": [_var("data"), _text("other")]}, "rules": [{}]}})


LIES: list[tuple[Callable[[FakeOpa], None], str]] = [
    (_other_revision, "engine/revision"),
    (_no_bundle, "engine/revision"),
    (_no_provenance, "engine/revision"),
    (_undefined, "engine/error"),
    (_true, "engine/error"),
    (_text_for_true, "engine/error"),
    (_no_json, "engine/error"),
    (_error, "engine/error"),
    (_slow, "engine/timeout"),
    (_no_policies, "engine/revision"),
    (_one_more, "engine/revision"),
    (_one_less, "engine/revision"),
    (_one_other, "engine/revision"),
    (_in_the_root, "engine/revision"),
    (_reaches_out, "engine/builtins"),
    (_divides, "engine/builtins"),
    (_new_construct, "engine/builtins"),
    (_unreadable, "engine/builtins"),
]


@pytest.mark.parametrize(("lie", "rule"), LIES, ids=lambda value: getattr(value, "__name__", "").strip("_"))
async def test_every_lie_is_a_denial_that_names_it(
    engine: Engine, fake: FakeOpa, lie: Callable[[FakeOpa], None], rule: str
) -> None:
    lie(fake)
    started = time.monotonic()
    decision = await engine.decide_async("admission", trees.admission_input())
    assert not decision.allow
    assert decision.code == rule, decision.reason
    assert time.monotonic() - started < 3, "the deadline is ours, and nothing is tried twice"
    assert len(fake.queries) <= 1


async def test_policies_are_read_again_when_the_revision_changed(engine: Engine, fake: FakeOpa, loaded: Loaded) -> None:
    assert (await engine.decide_async("admission", trees.admission_input())).allow
    _other_revision(fake)
    assert (await engine.decide_async("admission", trees.admission_input())).code == "engine/revision"
    fake.answer["provenance"]["bundles"]["/b"]["revision"] = loaded.bundle.revision
    _reaches_out(fake)
    assert (await engine.decide_async("admission", trees.admission_input())).code == "engine/builtins"
    fake.policies.pop()
    assert (await engine.decide_async("admission", trees.admission_input())).allow


async def test_many_at_once_do_not_read_the_policies_each(engine: Engine, fake: FakeOpa) -> None:
    decisions = await asyncio.gather(*(engine.decide_async("admission", trees.admission_input(i)) for i in range(20)))
    assert all(decision.allow for decision in decisions)
    assert fake.reads < 10


async def test_one_connection_serves_one_call_after_the_other(engine: Engine, fake: FakeOpa) -> None:
    for i in range(50):
        assert (await engine.decide_async("admission", trees.admission_input(i))).allow
        assert (await asyncio.to_thread(engine.decide, "admission", trees.admission_input(i))).allow
    assert len(fake.peers) == 1, "counted at the server"


async def test_a_server_that_does_not_answer_is_not_asked_for_a_while(
    engine: Engine, fake: FakeOpa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._evaluator._link.breaker, "_pause", 3600.0)  # type: ignore[attr-defined]
    assert (await engine.decide_async("admission", trees.admission_input())).allow
    fake.delay = 30
    for i in range(FAILURES):
        assert not engine.paused
        assert (await engine.decide_async("admission", trees.admission_input(i))).code == "engine/timeout"
    asked = len(fake.queries)
    assert engine.paused
    denied = [await engine.decide_async("admission", trees.admission_input(i)) for i in range(100)]
    assert {decision.code for decision in denied} == {"engine/unavailable"}
    assert len(fake.queries) == asked
    assert engine.failures == {"engine/timeout": FAILURES, "engine/unavailable": 100}
    fake.delay = 0
    monkeypatch.setattr(engine._evaluator._link.breaker, "_until", 0.0)  # type: ignore[attr-defined]
    assert (await engine.decide_async("admission", trees.admission_input())).allow, "asked again, and believed"
    assert not engine.paused


async def test_a_server_that_answers_wrongly_is_asked_again(engine: Engine, fake: FakeOpa) -> None:
    """It is there; who mends it waits for nothing."""
    fake.status = 500
    for _ in range(FAILURES + 1):
        assert (await engine.decide_async("admission", trees.admission_input())).code == "engine/error"
    assert not engine.paused
    assert len(fake.queries) == FAILURES + 1, "each is asked once, and nothing is tried twice"


def test_nobody_there_is_a_denial(loaded: Loaded, free_port: int) -> None:
    engine = Engine(loaded, OpaServer(f"http://127.0.0.1:{free_port}", loaded.bundle), memory=Memory(0))
    decision = engine.decide("admission", trees.admission_input())
    engine.close()
    assert decision.code == "engine/unavailable"
    assert f"127.0.0.1:{free_port}" in decision.reason
    assert engine.decide("admission", trees.admission_input()).code == "engine/unavailable"


def test_engine_nobody_closes_ends_its_thread(loaded: Loaded, free_port: int) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    engine = Engine(loaded, OpaServer(f"http://127.0.0.1:{free_port}", loaded.bundle), memory=Memory(0))
    engine.decide("admission", trees.admission_input())
    (started,) = [thread for thread in threading.enumerate() if thread.ident not in before]
    del engine
    gc.collect()
    started.join(timeout=5)
    assert not started.is_alive()


@pytest.mark.parametrize("url", ["http://host/prefix", "http://host?x=1", "http://user:secret@host", "http://"])
def test_address_with_more_than_a_host_is_refused(loaded: Loaded, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OpaServer(url, loaded.bundle)
    assert "secret" not in str(caught.value)


# --- the walk over OPA's tree --------------------------------------------------------------------------------------

NESTED = {
    "an argument": [_ref("count"), {"type": "call", "value": [_ref("http", "send"), _var("y")]}],
    "an array": {"type": "array", "value": [{"type": "call", "value": [_ref("http", "send")]}]},
    "a set": {"type": "set", "value": [{"type": "call", "value": [_ref("http", "send")]}]},
    "an object's key": {"type": "object", "value": [[{"type": "call", "value": [_ref("http", "send")]}, _var("y")]]},
    "an object's value": {"type": "object", "value": [[_var("y"), {"type": "call", "value": [_ref("http", "send")]}]]},
    "a comprehension's term": {
        "type": "arraycomprehension",
        "value": {"term": {"type": "call", "value": [_ref("http", "send")]}, "body": []},
    },
    "a comprehension's body": {
        "type": "setcomprehension",
        "value": {"term": _var("y"), "body": [{"index": 0, "terms": [_ref("http", "send"), _var("y")]}]},
    },
    "an index": {"type": "ref", "value": [_var("input"), {"type": "call", "value": [_ref("http", "send")]}]},
    "every's domain": {
        "domain": {"type": "call", "value": [_ref("http", "send")]},
        "key": None,
        "value": _var("y"),
        "body": [],
    },
    "every's body": {
        "domain": _var("z"),
        "key": None,
        "value": _var("y"),
        "body": [{"index": 0, "terms": [_ref("http", "send")]}],
    },
    "some … in": {
        "symbols": [
            {
                "type": "call",
                "value": [_ref("internal", "member_2"), _var("y"), {"type": "call", "value": [_ref("http", "send")]}],
            }
        ]
    },
}


@pytest.mark.parametrize("name", NESTED)
def test_calls_are_found_wherever_they_stand(name: str) -> None:
    syntax = opa_syntax.read(_ast(["x"], NESTED[name]))
    assert ("http", "send") in [use.path for use in syntax.uses if use.kind == "call"]


def test_calls_in_heads_elses_and_withs_are_found() -> None:
    ast = _ast(["x"], _var("y"))
    rule = ast["rules"][0]
    call = {"type": "call", "value": [_ref("http", "send")]}
    for place in ("value", "key"):
        changed = json.loads(json.dumps(ast))
        changed["rules"][0]["head"][place] = call
        assert ("http", "send") in [use.path for use in opa_syntax.read(changed).uses]
    changed = json.loads(json.dumps(ast))
    changed["rules"][0]["else"] = {"head": {**rule["head"], "value": call}, "body": []}
    assert ("http", "send") in [use.path for use in opa_syntax.read(changed).uses]
    changed = json.loads(json.dumps(ast))
    changed["rules"][0]["body"][0]["with"] = [{"target": _ref("input"), "value": call}]
    uses = opa_syntax.read(changed).uses
    assert ("http", "send") in [use.path for use in uses]
    assert "with" in [use.kind for use in uses]
