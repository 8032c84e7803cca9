from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import ConfigError
from policies import cost
from policies.check import load_tree
from policies.tree import read_tree
from tests.unit.policies import trees

RULE = "admission/mine"
TEST = "rules/admission/mine/mine_test.rego"
HEAD = "package portcullis.rules.admission.mine_test\n\nimport data.portcullis.rules.admission.mine as rule\n\n"
SLOW = """\
default checked := false

checked if is_string(input.request.namespace)

deny contains {"path": "", "args": {}} if {
	some a in digits
	some b in digits
	some c in digits
	a + b + c > 9000
}

digits := {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24}
"""


def folder(place: Path, body: str = trees.SILENT_BODY, test: str = "", budget: int | None = None) -> Path:
    metadata = trees.METADATA.format(title="mine") + (f"#   budget_us: {budget}\n" if budget else "")
    own = trees.extra(place, RULE, body, metadata=metadata)
    return trees.write(own, {TEST: HEAD + test}) if test else own


def costs(tmp_path: Path, own: Path, **options: object) -> dict[str, cost.Cost]:
    root = trees.write(tmp_path / "root", trees.files())
    return {one.rule.id: one for one in cost.measure(root, [own], **options)}  # type: ignore[arg-type]


CALLED = 'test_a if count(rule.deny) == 0 with input as {"request": {"namespace": "a"}}\n'


def test_rule_within_its_budget_has_no_problem(tmp_path: Path) -> None:
    one = costs(tmp_path, folder(tmp_path / "own", test=CALLED))[RULE]
    assert (one.inputs, one.problem, one.budget_us) == (1, "", cost.DEFAULT_BUDGET_US)
    assert one.slowest_us is not None
    assert 0 < one.slowest_us < cost.DEFAULT_BUDGET_US


def test_slow_rule_is_found_against_its_own_budget(tmp_path: Path) -> None:
    """15,625 additions cannot be done in 100 microseconds by any interpreter; a fast rule over the same input can."""
    one = costs(tmp_path, folder(tmp_path / "own", SLOW, CALLED, budget=100))[RULE]
    assert one.slowest_us is not None
    assert one.slowest_us > 100
    assert "its budget is 100 µs" in one.problem
    assert one.share == one.slowest_us / 100


def test_rule_whose_cost_nobody_knows_is_a_problem(tmp_path: Path) -> None:
    one = costs(tmp_path, folder(tmp_path / "own"))[RULE]
    assert (one.inputs, one.slowest_us, one.share) == (0, None, None)
    assert "give no input" in one.problem


def test_a_slow_moment_is_not_a_slow_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over is measured again before it is said to be."""
    readings = iter([10_000_000])
    real = cost._median

    def noisy(*arguments: object) -> float:
        return next(readings, None) or real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cost, "_median", noisy)
    one = costs(tmp_path, folder(tmp_path / "own", test=CALLED))[RULE]
    assert one.problem == ""


def test_inputs_from_outside_are_measured_with_the_rules_of_their_domain(tmp_path: Path) -> None:
    found = costs(tmp_path, folder(tmp_path / "own"), inputs=[trees.admission_input(), trees.gateway_input()])
    assert found[RULE].inputs == 1
    assert found["gateway/model-access"].inputs == 1
    assert found["weights/key-release"].inputs == 0


GIVEN = {
    "a literal": ('test_a if rule.checked with input as {"a": 1}', [{"a": 1}]),
    "a helper": ('test_a if rule.checked with input as made(2)\n\nmade(x) := {"a": x}', [{"a": 2}]),
    "the same twice": (
        'test_a if {\n\trule.checked with input as {"a": 1}\n\tnot rule.checked with input as {"a": 1}\n}',
        [{"a": 1}],
    ),
    "a test's own variable": ('test_a if {\n\tx := {"a": 1}\n\trule.checked with input as x\n}', []),
    "no object": ("test_a if not rule.checked with input as 1", []),
    "another thing replaced": ('test_a if rule.checked with data.x as {"a": 1}', []),
}


@pytest.mark.parametrize("name", GIVEN)
def test_inputs_are_taken_from_the_tests(tmp_path: Path, name: str) -> None:
    test, expected = GIVEN[name]
    root = trees.write(tmp_path / "root", trees.files())
    own = folder(tmp_path / "own", test=test + "\n")
    (source,) = [source for source in read_tree(root, [own]).tests if source.rule_id == RULE]
    assert [json.loads(text) for text in cost.tested(load_tree(root, [own]), source)] == expected


def test_rules_that_may_not_run_are_not_measured(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        costs(tmp_path, folder(tmp_path / "own", trees.SILENT_BODY + "\nx := http.send({})\n"))
