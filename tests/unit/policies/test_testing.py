from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError
from policies import testing
from tests.unit.policies import trees

TEST = "rules/admission/gpu-quota/gpu-quota_test.rego"
HEAD = 'package portcullis.rules.admission["gpu-quota_test"]\n\nimport data.portcullis.rules.admission["gpu-quota"] as rule\n\n'

OUTCOMES = {
    "true": ('test_x if count(rule.deny) == 1 with input as {"request": {"gpu_shares": 40320}}', True, ""),
    "false by value": ("test_x := false", False, "false"),
    "another value": ('test_x := "true"', False, "not true"),
    "undefined": ('test_x if count(rule.deny) == 1 with input as {"request": {"gpu_shares": 1}}', False, "undefined"),
    "an error": ('test_x if count(input.x) == 1 with input as {"x": 3}', False, "count"),
    "a set": ("test_x contains 1", False, "contains"),
    "a function": ("test_x(y) := y", False, "function"),
    "a case of a table": ("test_x[c] if some c in [1]", False, "partial"),
    "twice the name": ("test_x if true\n\ntest_x if false", False, "2 tests"),
    "skipped": ("todo_test_x if false", None, "todo_"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcomes(tmp_path: Path, name: str) -> None:
    body, passed, detail = OUTCOMES[name]
    (result,) = testing.run(trees.write(tmp_path, {**trees.files(), TEST: HEAD + body + "\n"}))
    assert result.passed is passed
    assert detail in result.detail
    assert result.file.endswith(TEST)
    assert result.name.startswith('data.portcullis.rules.admission["gpu-quota_test"].')


def test_only_chooses_by_name_or_file(tmp_path: Path) -> None:
    root = trees.write(tmp_path, {**trees.files(), TEST: HEAD + "test_a := true\n\ntest_b := true\n\nhelper := 1\n"})
    assert len(testing.run(root)) == 2
    assert [r.name.rsplit(".", 1)[1] for r in testing.run(root, only="test_b")] == ["test_b"]
    assert len(testing.run(root, only="gpu-quota_test.rego")) == 2


def test_tests_reach_the_generated_decision(tmp_path: Path) -> None:
    body = 'import data.portcullis.admission\n\ntest_denies if not admission.decision.allow with input as {"mandatory": []}\n'
    (result,) = testing.run(trees.write(tmp_path, {**trees.files(), TEST: HEAD + body}))
    assert result.passed, result.detail


def test_one_test_cannot_see_anothers_input(tmp_path: Path) -> None:
    body = (
        'test_a if count(rule.deny) == 1 with input as {"request": {"gpu_shares": 40320}}\n\n'
        'test_b if count(rule.deny) == 0 with input as {"request": {"gpu_shares": 1}}\n\n'
        "test_c if not input.request\n"
    )
    results = testing.run(trees.write(tmp_path, {**trees.files(), TEST: HEAD + body}))
    assert [r.passed for r in results] == [True] * 3, results


def test_no_tests_is_an_error_not_a_success(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no test_"):
        testing.run(trees.write(tmp_path, trees.files()))


def test_unreadable_test_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gpu-quota_test"):
        testing.run(trees.write(tmp_path, {**trees.files(), TEST: "package x\n\ntest_a if {"}))


def test_rules_that_may_not_run_are_not_tested(tmp_path: Path) -> None:
    body = trees.ADMISSION_BODY + "\nx := http.send({})\n"
    root = trees.write(tmp_path, {**trees.files(admission__gpu_quota=body), TEST: HEAD + "test_a := true\n"})
    with pytest.raises(ConfigError, match=r"http\.send"):
        testing.run(root)
