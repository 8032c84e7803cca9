"""Remembered decisions are the same decisions, and no changed fact is ever answered from memory."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest

from core.canonical import canonical
from core.decision import DOMAINS, Decision
from policies.check import load_tree
from policies.engine import Engine, load_embedded
from policies.evaluate import EngineFailure
from policies.memory import Memory
from tests.corpus import cases

CASES = [case for case in cases() if "schema" not in case.expect]


class Counting:
    """An evaluator that counts, and fails when told to."""

    name = "counting"

    def __init__(self) -> None:
        self.inner = load_embedded()
        self.asked = 0
        self.broken = False

    def evaluate(self, domain: Any, document: bytes) -> Any:
        self.asked += 1
        if self.broken:
            raise EngineFailure("engine/unavailable", problem="gone")
        return self.inner._evaluator.evaluate(domain, document)

    async def evaluate_async(self, domain: Any, document: bytes) -> Any:
        return self.evaluate(domain, document)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def engine(counting: Counting) -> Engine:
    return Engine(load_tree(), counting)


def shape(decision: Decision) -> dict[str, Any]:
    return {name: value for name, value in decision.as_json().items() if name not in ("decision_id", "duration_us")}


def test_the_corpus_twice_is_asked_once_and_answers_the_same(engine: Engine, counting: Counting) -> None:
    first = [engine.decide(case.domain, case.input) for case in CASES]
    asked = counting.asked
    again = [engine.decide(case.domain, copy.deepcopy(case.input)) for case in CASES]
    assert counting.asked == asked
    assert [shape(decision) for decision in again] == [shape(decision) for decision in first]
    assert len({decision.decision_id for decision in (*first, *again)}) == 2 * len(CASES), "each decision is one of its own"
    assert engine.memory.hits >= len(CASES)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return [path]
    return [leaf for key, item in items for leaf in leaves(item, (*path, key))]


def test_whatever_changes_in_the_input_is_asked_anew(engine: Engine, counting: Counting) -> None:
    """Every leaf of every domain's first case, changed by itself: consent, revocation, approvals, time, configuration."""
    for domain in DOMAINS:
        base = next(case.input for case in CASES if case.domain == domain)
        engine.decide(domain, base)
        for path in leaves(base):
            changed = copy.deepcopy(base)
            here = changed
            for part in path[:-1]:
                here = here[part]
            old = here[path[-1]]
            here[path[-1]] = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, int) else f"{old}x"
            before = engine.memory.hits
            fresh = load_embedded().decide(domain, changed) if path[-1] in ("consent", "revoked") else None
            got = engine.decide(domain, changed)
            assert engine.memory.hits == before, path
            if fresh is not None:
                assert shape(got)["allow"] == fresh.allow


def test_a_withdrawal_counts_from_the_next_decision_on(engine: Engine) -> None:
    base = next(case.input for case in CASES if case.domain == "gateway" and case.expect.get("allow"))
    for _ in range(3):
        assert engine.decide("gateway", base).allow
    withdrawn = copy.deepcopy(base)
    withdrawn["facts"]["model"]["datasets"] = [{"name": "web", "version": "1", "consent": "withdrawn", "purposes": []}]
    assert not engine.decide("gateway", withdrawn).allow
    assert engine.decide("gateway", base).allow


def test_failures_and_unreadable_inputs_are_never_remembered(engine: Engine, counting: Counting) -> None:
    case = next(case for case in CASES if case.expect.get("allow"))
    counting.broken = True
    assert engine.decide(case.domain, case.input).code == "engine/unavailable"
    counting.broken = False
    assert engine.decide(case.domain, case.input).allow
    engine.decide("gateway", {"now_unix": "x"})
    engine.decide("gateway", {"now_unix": float("nan")})
    assert len(engine.memory) == 1


def test_it_is_bounded_and_the_oldest_goes_first() -> None:
    memory, engine = Memory(3), load_embedded()
    found = {decision.input_digest: decision for decision in (engine.decide(case.domain, case.input) for case in CASES)}
    decisions = list(found.values())[:4]
    for decision in decisions[:3]:
        memory.keep(decision)
    assert memory.recall(decisions[0].domain, decisions[0].input_digest, 1) is not None
    memory.keep(decisions[3])
    assert len(memory) == 3
    assert memory.recall(decisions[1].domain, decisions[1].input_digest, 1) is None, "asked for longest ago"
    assert (memory.hits, memory.misses) == (1, 1)
    nothing = Memory(0)
    nothing.keep(decisions[0])
    assert len(nothing) == 0


async def test_threads_and_loops_share_it(engine: Engine) -> None:
    expected = [canonical(dict(engine.decide(case.domain, case.input).result)) for case in CASES[:40]]
    wrong: list[str] = []

    def work() -> None:
        for case, want in zip(CASES[:40], expected, strict=True):
            if canonical(dict(engine.decide(case.domain, case.input).result)) != want:
                wrong.append(str(case))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (await engine.decide_async(CASES[0].domain, CASES[0].input)).allow == bool(CASES[0].expect.get("allow"))
