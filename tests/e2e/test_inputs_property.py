"""Inputs that nobody wrote, through all three engines: one decision, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.canonical import canonical
from core.decision import DOMAINS, Domain
from policies.bundle import write_opa_bundle
from policies.check import load_tree
from policies.distribution import compile_wasm
from policies.engine import Engine, load_embedded
from policies.memory import Memory
from policies.opa import OpaServer
from policies.wasm import Wasm
from tests.e2e.test_opa import Server, opa
from tests.unit.policies import inputs
from tests.unit.policies.test_inputs_property import LAW

__all__ = ["opa"]
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def engines(opa: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Engine]]:
    folder: Path = tmp_path_factory.mktemp("bundle")
    loaded = load_tree()
    write_opa_bundle(loaded.bundle, folder)
    server = Server(opa, "--bundle", folder)
    made = [
        load_embedded(),
        Engine(loaded, Wasm(compile_wasm(loaded.bundle, opa), deadline_ms=10_000), memory=Memory(0)),
        Engine(loaded, OpaServer(server.url, loaded.bundle, deadline_ms=10_000), memory=Memory(0)),
    ]
    yield made
    for engine in made:
        engine.close()
    server.stop()


@pytest.mark.parametrize("domain", DOMAINS)
@settings(LAW, max_examples=100)
@given(data=st.data())
def test_three_engines_give_one_decision(engines: list[Engine], domain: Domain, data: st.DataObject) -> None:
    document = data.draw(inputs.valid(domain))
    decisions = [engine.decide(domain, document) for engine in engines]
    assert all(decision.result for decision in decisions), [decision.reason for decision in decisions]
    assert len({canonical(dict(decision.result)) for decision in decisions}) == 1
    assert len({(decision.allow, decision.reason) for decision in decisions}) == 1
