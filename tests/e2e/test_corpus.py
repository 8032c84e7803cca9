"""The corpus through an OPA server: the same decisions, and the same document as the embedded engine's, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.canonical import canonical
from policies.bundle import write_opa_bundle
from policies.check import load_tree
from policies.engine import Engine, load_embedded
from policies.opa import OpaServer
from tests.corpus import cases, differences
from tests.e2e.test_opa import Server, opa

__all__ = ["opa"]
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def served(opa: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder: Path = tmp_path_factory.mktemp("bundle")
    loaded = load_tree()
    write_opa_bundle(loaded.bundle, folder)
    server = Server(opa, "--bundle", folder)
    engine = Engine(loaded, OpaServer(server.url, loaded.bundle, deadline_ms=10_000))
    yield engine
    engine.close()
    server.process.kill()
    server.process.wait()


def test_an_opa_server_decides_as_the_corpus_says_and_as_the_embedded_engine_does(served: Engine) -> None:
    embedded = load_embedded()
    wrong = {}
    for case in cases():
        theirs = served.decide(case.domain, case.input)
        ours = embedded.decide(case.domain, case.input)
        found = differences(case, theirs)
        if canonical(dict(theirs.result)) != canonical(dict(ours.result)):
            found.append("the engines' documents differ")
        if found:
            wrong[str(case)] = found
    assert wrong == {}
