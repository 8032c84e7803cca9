"""The generated modules that join a domain's rules: which rules were evaluated, in order, whatever one of them does."""

from __future__ import annotations

import pytest

from bench.decisions import INPUTS, generated
from policies.aggregator import generate
from policies.bundle import Bundle
from policies.embedded import Embedded

ASKED = (INPUTS / "admission.json").read_bytes()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The benchmark's rules: they must stay rules that may decide, or `make bench` measures nothing."""
    return generated(tmp_path_factory.mktemp("rules") / "own", 8, 12).bundle


def evaluated(bundle: Bundle) -> list[str]:
    engine = Embedded(bundle.modules)
    try:
        found: list[str] = engine.evaluate("admission", ASKED)["evaluated"]
        return found
    finally:
        engine.close()


def without_checked(bundle: Bundle) -> tuple[Bundle, str]:
    """`checked` of one rule is undefined for this input, not false."""
    (path,) = [path for path in bundle.modules if path.startswith("rules/admission/busy-1/")]
    text = bundle.modules[path].replace("default checked := false\n", "").replace("is_array(input", "is_string(input", 1)
    assert text.count("checked") == 1
    return Bundle({**bundle.modules, path: text}), "admission/busy-1"


def test_every_rule_is_listed_once_and_in_order(bundle: Bundle) -> None:
    found = evaluated(bundle)
    assert len(found) == 12
    assert found == sorted(set(found))


def test_a_rule_that_is_undefined_is_not_listed_and_takes_no_other_with_it(bundle: Bundle) -> None:
    other, rule = without_checked(bundle)
    assert evaluated(other) == [one for one in evaluated(bundle) if one != rule]


def test_a_domain_without_rules_evaluates_nothing(bundle: Bundle) -> None:
    library = {path: text for path, text in bundle.modules.items() if path.startswith("lib/")}
    engine = Embedded({**library, **generate([])})
    try:
        decision = engine.evaluate("weights", b'{"mandatory": ["weights/frozen"], "config": {}, "request": {}, "now_unix": 1}')
    finally:
        engine.close()
    assert (decision["allow"], decision["evaluated"]) == (False, [])
