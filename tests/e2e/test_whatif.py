"""`policy whatif` with a bundle that brings a Wasm module, compiled by a real OPA."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.check import load_tree
from policies.distribution import build, compile_wasm
from policies.recompute import Candidate, Recompute
from tests.e2e.test_opa import opa
from tests.unit.cli.test_whatif import TOO_OFTEN, House, asked, engine, house
from tests.unit.policies import trees

__all__ = ["engine", "house", "opa"]
pytestmark = pytest.mark.e2e


def test_the_wasm_module_decides_and_finds_what_the_embedded_engine_finds(house: House, opa: str) -> None:
    loaded = load_tree(None, [trees.extra(Path("own"), "gateway/too-often", TOO_OFTEN)])
    Path("new.tar.gz").write_bytes(build(loaded, wasm=compile_wasm(loaded.bundle, opa), tests=1))
    Path("plain.tar.gz").write_bytes(build(loaded, wasm=None, tests=1))
    made = [house.decide(asked(model, team)) for model in ("llama", "gpt") for team in ("vision", "search")]
    (status, found), (_, plain) = house.whatif("new.tar.gz"), house.whatif("plain.tar.gz")
    assert (status, found["new"].pop("engine"), plain["new"].pop("engine")) == (1, "wasm", "embedded")
    assert [change["decision_id"] for change in found["decisions_changed"]] == made[2:]
    for document in (found, plain):
        del document["new"]["source"], document["filter"]
    assert found == plain


def test_wasm_needs_one_judge(opa: str) -> None:
    loaded = load_tree()
    with Recompute([Candidate(loaded, compile_wasm(loaded.bundle, opa))], alone=0, judges=4) as recompute:
        recompute.submit([("gateway", b"{}")])()
        assert recompute.judges == 1
