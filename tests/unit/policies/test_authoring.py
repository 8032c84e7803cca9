from __future__ import annotations

from pathlib import Path

import pytest

from core.decision import DOMAINS
from core.errors import BadInput, Conflict, PortcullisError
from policies import testing
from policies.authoring import new_rule
from policies.check import check_tree, load_tree
from tests.unit.policies import trees

NAMES = [*(f"{domain}/my-rule" for domain in DOMAINS), "admission/x", "gateway/not", "admission/a1-b2"]


@pytest.mark.parametrize("rule_id", NAMES)
def test_new_rule_passes_its_own_tests_and_the_check(tmp_path: Path, rule_id: str) -> None:
    root = trees.write(tmp_path / "root", trees.files())
    rule, test = new_rule(tmp_path / "mine", rule_id)
    assert rule == tmp_path / "mine" / "rules" / rule_id / f"{rule_id.split('/')[1]}.rego"
    assert check_tree(root, [tmp_path / "mine"]) == []
    results = testing.run(root, [tmp_path / "mine"], only=str(test))
    assert len(results) == 3
    assert all(result.passed for result in results), results
    assert rule_id in load_tree(root, [tmp_path / "mine"]).catalogue.by_id


def test_the_tests_notice_a_broken_rule(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "root", trees.files())
    rule, _ = new_rule(tmp_path / "mine", "admission/my-rule")
    rule.write_text(rule.read_text().replace('== "forbidden"', '!= "forbidden"'))
    assert not all(result.passed for result in testing.run(root, [tmp_path / "mine"]))


BAD_NAMES = [
    "my-rule", "admission/", "/x", "kitchen/x", "admission/My", "admission/my_rule", "admission/../x", "admission/a/b",
    "admission/-x", "admission/x-", "admission/a--b", "admission/1x", "admission/x\n", 'admission/x"', "admission/" + "x" * 61, "",
]  # fmt: skip


@pytest.mark.parametrize("rule_id", BAD_NAMES)
def test_bad_names_write_nothing(tmp_path: Path, rule_id: str) -> None:
    with pytest.raises(BadInput, match="no name for a rule"):
        new_rule(tmp_path, rule_id)
    assert list(tmp_path.iterdir()) == []


def test_existing_rule_is_left_alone(tmp_path: Path) -> None:
    rule, _ = new_rule(tmp_path, "admission/my-rule")
    rule.write_text("mine")
    with pytest.raises(Conflict, match="exists already"):
        new_rule(tmp_path, "admission/my-rule")
    assert rule.read_text() == "mine"


def test_name_of_a_shipped_rule_is_taken(tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        new_rule(tmp_path, "admission/gpu-quota")


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("a file")
    with pytest.raises(PortcullisError, match="cannot be written"):
        new_rule(tmp_path, "admission/my-rule")
