from __future__ import annotations

from pathlib import Path

import pytest

from core.decision import MANDATORY
from core.errors import ConfigError
from policies.check import check_tree, load_tree
from policies.engine import load_embedded
from tests.unit.policies import trees

RULE = "rules/admission/gpu-quota/gpu-quota.rego"
GOOD = trees.files()

BAD_TREES: dict[str, tuple[dict[str, str], str]] = {
    "not Rego": ({RULE: "package x\n\np if {"}, "parse"),
    "Rego of the old kind": ({RULE: trees.module("admission/gpu-quota", "deny[x] { x := 1 }")}, "parse"),
    "another package": ({RULE: GOOD[RULE].replace('["gpu-quota"]', '["gpu-quotas"]')}, "package"),
    "a library's package": ({RULE: GOOD[RULE].replace('rules.admission["gpu-quota"]', "lib.modes")}, "package"),
    "an aggregator's package": ({RULE: GOOD[RULE].replace('rules.admission["gpu-quota"]', "admission")}, "package"),
    "a library elsewhere": ({"lib/modes/modes.rego": trees.MODES.replace("lib.modes", "lib.others")}, "package"),
    "no metadata": ({RULE: GOOD[RULE][GOOD[RULE].index("package") :]}, "metadata"),
    "metadata without a severity": ({RULE: GOOD[RULE].replace("#   severity: medium\n", "")}, "metadata"),
    "metadata that is no YAML": ({RULE: GOOD[RULE].replace("# title: gpu", "# title: [gpu")}, "metadata"),
    "no checked": ({RULE: trees.module("admission/gpu-quota", 'deny contains {"path": "", "args": {}}')}, "checked"),
    "checked as a set": ({RULE: trees.module("admission/gpu-quota", "checked contains 1\n\ndeny contains 1")}, "checked"),
    "deny that is no set": ({RULE: trees.module("admission/gpu-quota", "checked := true\n\ndeny if true")}, "deny"),
    "deny with a deeper name": ({RULE: trees.module("admission/gpu-quota", "checked := true\n\ndeny.x contains 1")}, "deny"),
    "grant that is no set": ({RULE: trees.module("admission/gpu-quota", "checked := true\n\ngrant := true")}, "grant"),
    "neither deny nor grant": ({RULE: trees.module("admission/gpu-quota", "checked := true")}, "deny"),
    "a file beside the folders": ({"rules/stray.rego": "package portcullis.rules.stray\n\nx := 1\n"}, "place"),
    "a domain that is none": ({"rules/kitchen/sink/sink.rego": trees.module("kitchen/sink", trees.SILENT_BODY)}, "place"),
    "a second file in a rule's folder": ({"rules/admission/gpu-quota/more.rego": GOOD[RULE]}, "place"),
    "a name in capitals": ({"rules/admission/Mine/Mine.rego": trees.module("admission/Mine", trees.SILENT_BODY)}, "place"),
    "a library function missing": ({"lib/modes/modes.rego": "package portcullis.lib.modes\n\nother := 1\n"}, "library"),
}


@pytest.mark.parametrize("name", BAD_TREES)
def test_bad_tree_is_found_and_not_loaded(tmp_path: Path, name: str) -> None:
    changes, code = BAD_TREES[name]
    root = trees.write(tmp_path, {**GOOD, **changes})
    assert code in {finding.code for finding in check_tree(root)}
    with pytest.raises(ConfigError):
        load_embedded(root)


def test_good_tree_has_no_findings(tmp_path: Path) -> None:
    assert check_tree(trees.write(tmp_path, GOOD)) == []


def test_finding_names_file_line_and_what_to_do(tmp_path: Path) -> None:
    body = trees.ADMISSION_BODY + "\nx := http.send({})\n"
    root = trees.write(tmp_path, trees.files(admission__gpu_quota=body))
    (finding,) = check_tree(root)
    line = (root / RULE).read_text().split("\n").index("x := http.send({})") + 1
    assert (finding.path, finding.line, finding.code) == (str(root / RULE), line, "builtin")
    assert "http.send" in str(finding)
    assert "policies/builtins.py" in str(finding)


def test_no_rules_at_all_refuses_to_load(tmp_path: Path) -> None:
    library = {path: text for path, text in GOOD.items() if path.startswith("lib/")}
    with pytest.raises(ConfigError, match="no rule was found"):
        load_embedded(trees.write(tmp_path, library))


def test_empty_folder_refuses_to_load(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_embedded(tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        check_tree(tmp_path / "nowhere")


def test_data_files_are_refused(tmp_path: Path) -> None:
    trees.write(tmp_path, {**GOOD, "lib/modes/data.json": "{}"})
    with pytest.raises(ConfigError, match="constant tables"):
        check_tree(tmp_path)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    trees.write(tmp_path, GOOD)
    (tmp_path / RULE).write_bytes(b"package x\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        check_tree(tmp_path)


def test_deeply_nested_text_is_a_finding_not_a_crash(tmp_path: Path) -> None:
    body = trees.SILENT_BODY + "\nx := " + "[" * 3000 + "]" * 3000 + "\n"
    assert check_tree(trees.write(tmp_path, trees.files(admission__gpu_quota=body)))


# --- extra folders -----------------------------------------------------------------------------------------------

EXTRA_BAD = {
    "the name of ours": ({RULE: GOOD[RULE]}, "taken"),
    "a second file for a rule of ours": (
        {"rules/admission/gpu-quota/gpu-quota-more.rego": trees.module("admission/gpu-quota", "deny contains 1")},
        "taken",
    ),
    "a library": ({"lib/modes/modes.rego": trees.MODES}, "taken"),
    "a library of its own": ({"lib/mine/mine.rego": "package portcullis.lib.mine\n\nx := 1\n"}, "place"),
    "more in our library": ({"lib/modes/more.rego": 'package portcullis.lib.modes\n\nmode("x") := "off"\n'}, "place"),
    "an aggregator": ({"generated/admission.rego": "package portcullis.admission\n\nallow := true\n"}, "place"),
    "another package from a rule's place": (
        {"rules/admission/mine/mine.rego": trees.module("admission/mine", trees.SILENT_BODY).replace("rules.", "lib.")},
        "package",
    ),
}


@pytest.mark.parametrize("name", EXTRA_BAD)
def test_extra_folder_cannot_reach_into_ours(tmp_path: Path, name: str) -> None:
    changes, code = EXTRA_BAD[name]
    root = trees.write(tmp_path / "root", GOOD)
    added = trees.write(tmp_path / "extra", changes)
    assert code in {finding.code for finding in check_tree(root, [added])}
    with pytest.raises(ConfigError):
        load_embedded(root, [added])


def test_two_extra_folders_with_one_rule_are_refused(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "root", GOOD)
    folders = [trees.extra(tmp_path / name, "admission/mine", trees.SILENT_BODY) for name in ("a", "b")]
    assert "taken" in {finding.code for finding in check_tree(root, folders)}


def test_extra_rule_is_in_the_catalogue_and_never_mandatory(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "root", GOOD)
    loaded = load_tree(root, [trees.extra(tmp_path / "extra", "admission/mine", trees.SILENT_BODY)])
    rules = {rule.id: rule for rule in loaded.catalogue.rules()}
    assert not rules["admission/mine"].mandatory
    assert {rule.id for rule in rules.values() if rule.mandatory} == {r for rules in MANDATORY.values() for r in rules}
    assert rules["admission/mine"].controls == ("test/1",)
