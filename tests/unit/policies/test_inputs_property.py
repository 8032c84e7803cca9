"""Laws over inputs that nobody wrote: every engine is asked nothing that does not fit, raises nothing, and is pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from core import jsonread
from core.canonical import canonical
from core.decision import DOMAINS, MANDATORY, NEEDS_GRANT, Domain
from core.errors import BadInput, TooLarge
from core.inputs import INPUTS
from policies.check import load_tree
from policies.engine import Engine, load_embedded
from policies.memory import Memory
from tests.unit.policies import inputs

LAW = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


class NeverAsked:
    """An engine that must not be reached."""

    name = "never"

    def evaluate(self, domain: Domain, document: bytes) -> Any:
        raise AssertionError("an engine saw an input that does not fit its schema")

    async def evaluate_async(self, domain: Domain, document: bytes) -> Any:
        return self.evaluate(domain, document)

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_embedded()


@pytest.fixture(scope="module")
def unreached() -> Engine:
    return Engine(load_tree(), NeverAsked(), memory=Memory(0))


@pytest.mark.parametrize("domain", DOMAINS)
@LAW
@given(data=st.data())
def test_a_fitting_input_gets_a_whole_decision(engine: Engine, domain: Domain, data: st.DataObject) -> None:
    document = data.draw(inputs.valid(domain))
    INPUTS[domain].model_validate_json(canonical(document), strict=True)
    decision = engine.decide(domain, document)
    assert decision.result, decision.reason
    assert {violation.rule for violation in decision.violations}.isdisjoint({"engine/error", "engine/timeout", "input/schema"})
    assert decision.allow == (not decision.violations)
    if decision.allow:
        assert set(MANDATORY[domain]) <= set(decision.evaluated)
        assert decision.grants or domain not in NEEDS_GRANT
    again = engine.decide(domain, json.loads(canonical(document)))
    assert canonical(dict(again.result)) == canonical(dict(decision.result))


@pytest.mark.parametrize("domain", DOMAINS)
@LAW
@given(data=st.data())
def test_a_spoilt_input_reaches_no_engine(unreached: Engine, domain: Domain, data: st.DataObject) -> None:
    document = data.draw(inputs.valid(domain))
    path = data.draw(st.sampled_from(inputs.places(document)))
    for name, wrong in inputs.WRONG.items():
        decision = unreached.decide(domain, inputs.put(document, path, wrong))
        assert (decision.allow, decision.code) == (False, "input/schema"), f"{name} at {path}"
        assert len(decision.violations) == 1


@pytest.mark.parametrize("domain", DOMAINS)
@LAW
@given(data=st.data())
def test_an_input_with_a_field_missing_or_too_many_reaches_no_engine(
    unreached: Engine, domain: Domain, data: st.DataObject
) -> None:
    document = data.draw(inputs.valid(domain))
    path = data.draw(st.sampled_from(inputs.required(domain, document)))
    here: Any = document
    for step in path[:-1]:
        here = here[step]
    kept = here.pop(path[-1])
    assert unreached.decide(domain, document).code == "input/schema", f"without {path}"
    here[path[-1]] = kept
    here["nobody"] = data.draw(st.sampled_from([None, 1, "x", [], {}]))
    assert unreached.decide(domain, document).code == "input/schema", f"more beside {path}"


@pytest.mark.parametrize("domain", DOMAINS)
@LAW
@given(data=st.data(), junk=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_anything_at_all_is_a_decision_and_never_an_exception(
    unreached: Engine, domain: Domain, data: st.DataObject, junk: Any
) -> None:
    assert unreached.decide(domain, junk).code == "input/schema"
    document = data.draw(inputs.valid(domain))
    assert unreached.decide(domain, inputs.put(document, ("request",), junk)).code == "input/schema"


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("depth", [70, 1_000, 100_000])
@settings(LAW, max_examples=5)
@given(data=st.data())
def test_deep_nesting_reaches_no_engine(unreached: Engine, domain: Domain, depth: int, data: st.DataObject) -> None:
    document = data.draw(inputs.valid(domain))
    deep: Any = []
    for _ in range(depth):
        deep = [deep]
    assert unreached.decide(domain, inputs.put(document, ("facts",), deep)).code == "input/schema"
    with pytest.raises((TooLarge, BadInput)):
        jsonread.loads(b'{"facts":' + b"[" * depth + b"]" * depth + b"}")


@pytest.mark.parametrize("domain", DOMAINS)
@LAW
@given(data=st.data())
def test_a_key_twice_dies_in_parsing_wherever_it_stands(domain: Domain, data: st.DataObject) -> None:
    """Two parsers that take different ones of the two would be a way past a rule."""
    document = data.draw(inputs.valid(domain))
    objects = [(), *[path for path in inputs.places(document) if isinstance(_at(document, path), dict) and _at(document, path)]]
    chosen = _at(document, data.draw(st.sampled_from(objects)))
    twin = data.draw(st.sampled_from(sorted(chosen)))
    text = _twice(document, chosen, twin)
    assert json.loads(text), "a careless parser takes it"
    with pytest.raises(BadInput, match="twice"):
        jsonread.loads(text.encode())


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def _twice(value: Any, chosen: Any, twin: str) -> str:
    """As JSON, where the object `chosen` has its member `twin` once more."""
    if isinstance(value, dict):
        members = [f"{json.dumps(key)}:{_twice(item, chosen, twin)}" for key, item in value.items()]
        members += [f"{json.dumps(twin)}:0"] if value is chosen else []
        return "{" + ",".join(members) + "}"
    return "[" + ",".join(_twice(item, chosen, twin) for item in value) + "]" if isinstance(value, list) else json.dumps(value)
