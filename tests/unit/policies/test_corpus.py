"""Every case of the corpus through the embedded engine; `tests/e2e/test_corpus.py` holds an OPA server to the same."""

from __future__ import annotations

import pytest

from core.decision import DOMAINS
from policies.engine import Engine, load_embedded
from tests.corpus import Case, cases, differences

ALL = list(cases())


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_embedded()


@pytest.mark.parametrize("case", ALL, ids=str)
def test_the_embedded_engine_decides_as_the_corpus_says(engine: Engine, case: Case) -> None:
    assert differences(case, engine.decide(case.domain, case.input)) == []


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(ALL) >= 1_000
    assert len({str(case) for case in ALL}) == len(ALL)
    assert {case.domain for case in ALL} == set(DOMAINS)
