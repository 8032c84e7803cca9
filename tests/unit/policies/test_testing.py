from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from core.errors import ConfigError
from policies import testing
from policies.covered import FileCoverage, ranges
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


# --- what a failure says -------------------------------------------------------------------------------------------------

FAILURES = {
    "a set, expected on the right": (
        'test_x if rule.deny == {{"path": "spec", "args": {"asked": 40320, "limit": 1}}} with input as {"request": {"gpu_shares": 40320}}',
        ['-      "limit": 1', '+      "limit": 20160', "line 5 does not hold"],
    ),
    "a constant on the left": (
        'test_x if {\n\tasked := {"request": {"gpu_shares": 40320}}\n\t2 == count(rule.deny) with input as asked\n}',
        ["-2", "+1", "line 7 does not hold"],
    ),
    "the second statement": (
        "test_x if {\n\tcount(rule.deny) == 0 with input as {}\n\tx := [1, 2]\n\tx == [1, 3]\n}",
        ["-  3", "+  2", "line 8 does not hold: x == [1, 3]"],
    ),
    "a value that is not there": (
        'test_x if input.request.gpu_shares == 5 with input as {"request": {}}',
        ["-5", "+(undefined)"],
    ),
    "no comparison": ('test_x if startswith("abc", "b")', ['line 5 does not hold: startswith("abc", "b")']),
    "a negation": ("test_x if not rule.checked == false", ["line 5 does not hold: not rule.checked == false"]),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_shows_the_statement_and_both_values(tmp_path: Path, name: str) -> None:
    body, said = FAILURES[name]
    (result,) = testing.run(trees.write(tmp_path, {**trees.files(), TEST: HEAD + body + "\n"}))
    assert result.passed is False
    for part in said:
        assert part in result.detail


def test_a_long_difference_is_cut(tmp_path: Path) -> None:
    body = "test_x if [x | some x in numbers] == []\n\nnumbers := [" + ",\n".join(str(n) for n in range(500)) + "]\n"
    (result,) = testing.run(trees.write(tmp_path, {**trees.files(), TEST: HEAD + body}))
    assert "more lines" in result.detail
    assert len(result.detail) < 5_000


# --- coverage ------------------------------------------------------------------------------------------------------------

COVERED = """\
default checked := false

checked if is_number(input.request.gpu_shares)

deny contains {"path": "spec", "args": {"asked": 1, "limit": 2}} if {
	input.request.gpu_shares > 20160
	input.request.kind == "Job"
}
"""


def covered(folder: Path, test: str, only: str | None = None) -> dict[str, FileCoverage]:
    root = trees.write(folder, {**trees.files(admission__gpu_quota=COVERED), TEST: HEAD + test + "\n"})
    return {found.rule or found.file: found for found in testing.run_all(root, only=only, coverage=True).files}


def lines_of(folder: Path) -> list[str]:
    return (folder / "rules/admission/gpu-quota/gpu-quota.rego").read_text().splitlines()


def test_coverage_names_the_lines_that_no_test_evaluated(tmp_path: Path) -> None:
    found = covered(tmp_path, 'test_a if count(rule.deny) == 0 with input as {"request": {"gpu_shares": 40320, "kind": "Pod"}}')
    ours = found["admission/gpu-quota"]
    text = lines_of(tmp_path)
    assert [text[line - 1].strip() for line in ours.missed] == [
        "default checked := false",
        "checked if is_number(input.request.gpu_shares)",
        'deny contains {"path": "spec", "args": {"asked": 1, "limit": 2}} if {',
    ], "the comparison was reached, the head was not: the body never held"
    assert [text[line - 1].strip() for line in ours.covered] == [
        "input.request.gpu_shares > 20160",
        'input.request.kind == "Job"',
    ]
    assert ours.percent == 40


def test_coverage_of_a_rule_comes_from_its_own_tests_only(tmp_path: Path) -> None:
    other = "rules/gateway/purpose/purpose_test.rego"
    text = 'package portcullis.rules.gateway.purpose_test\n\nimport data.portcullis.rules.admission["gpu-quota"] as rule\n\n'
    trees.write(tmp_path, {other: text + 'test_a if rule.checked with input as {"request": {"gpu_shares": 1}}\n'})
    ours = covered(tmp_path, "test_b := true")["admission/gpu-quota"]
    assert ours.percent == 0
    assert ours.missed


def test_rule_without_a_test_is_not_covered_at_all(tmp_path: Path) -> None:
    found = covered(tmp_path, "test_a := true")
    assert found["admission/approved-images"].percent == 0
    assert found["gateway/model-access"].missed


def test_full_coverage(tmp_path: Path) -> None:
    test = (
        'test_a if {\n\tcount(rule.deny) == 1 with input as {"request": {"gpu_shares": 40320, "kind": "Job"}}\n'
        '\trule.checked with input as {"request": {"gpu_shares": 1}}\n}'
    )
    assert covered(tmp_path, test)["admission/gpu-quota"].percent == 100


def test_shipped_rules_are_covered_by_their_own_tests() -> None:
    run = testing.run_all(coverage=True)
    assert [result for result in run.results if not result.passed] == []
    assert {found.rule or found.file: found.missed for found in run.files if found.missed} == {}


def test_lines_are_shown_as_ranges() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert ranges([]) == ""


# --- watch ---------------------------------------------------------------------------------------------------------------


def test_changes_are_a_write_a_new_file_and_one_that_is_gone(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "root", trees.files())
    added = trees.extra(tmp_path / "extra", "admission/mine", trees.SILENT_BODY)
    rule = added / "rules/admission/mine/mine.rego"
    edits = iter(
        [
            lambda: None,
            lambda: rule.write_text(rule.read_text() + "# more\n"),
            lambda: None,
            lambda: (root / TEST).write_text(HEAD),
            lambda: (added / "notes.txt").write_text("no rule"),
            rule.unlink,
        ]
    )
    done: list[int] = []

    def wait() -> None:
        done.append(1)
        next(edits, stop)()

    def stop() -> None:
        raise KeyboardInterrupt

    seen: list[int] = []
    with suppress(KeyboardInterrupt):
        seen.extend(len(done) for _ in testing.changes(root, [added], wait=wait))
    assert seen == [0, 2, 4, 6], "at the start, and after the second, fourth and sixth edit"
