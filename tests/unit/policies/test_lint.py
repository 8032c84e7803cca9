from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError
from policies import tree
from policies.check import Finding, check_tree, load_modules, load_tree
from policies.lint import CODES
from tests.unit.policies import trees
from tests.unit.policies.traps import CASES, CHECKED, SAFE, SHARED

RULE = "admission/mine"


def found(folder: Path, body: str, rule: str = RULE) -> list[Finding]:
    head, slash, rest = body.rpartition("\n\ndeny") if body.startswith("import") else ("", "", body)
    text = f"{head}\n\n{CHECKED}deny{rest}\n{SHARED}" if slash else f"{CHECKED}{body}\n{SHARED}"
    return check_tree(trees.write(folder / "root", trees.files()), [trees.extra(folder / "extra", rule, text)])


@pytest.mark.parametrize("name", CASES)
def test_trap_is_found_at_its_line_and_its_right_form_is_not(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    traps = found(tmp_path / "bad", case.bad)
    assert {trap.code for trap in traps} == {case.code}, traps
    for trap in traps:
        assert case.found in trap.message
        line = Path(trap.path).read_text().splitlines()[trap.line - 1]
        assert line.startswith(("\t", "deny", "odd", "astray", "unfit", "fine")), line
    assert found(tmp_path / "good", case.good) == []


@pytest.mark.parametrize("name", SAFE)
def test_what_is_safe_is_not_reported(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, SAFE[name]) == []


def test_every_code_has_a_case() -> None:
    assert {case.code for case in CASES.values()} == set(CODES)


def test_shipped_rules_have_no_trap() -> None:
    assert check_tree() == []


def test_tree_with_a_trap_does_not_load(tmp_path: Path) -> None:
    text = CHECKED + CASES["a built-in under not"].bad
    folder = trees.extra(tmp_path / "extra", RULE, text)
    with pytest.raises(ConfigError, match="undefined-under-not"):
        load_tree(trees.write(tmp_path / "root", trees.files()), [folder])


def test_built_bundle_with_a_trap_stays_replayable(tmp_path: Path) -> None:
    bundle = load_tree(trees.write(tmp_path, trees.files())).bundle
    path = "rules/admission/gpu-quota/gpu-quota.rego"
    trapped = trees.module("admission/gpu-quota", CHECKED + CASES["a built-in under not"].bad)
    changed = type(bundle)({**bundle.modules, path: trapped})
    assert load_modules(changed).bundle.revision == changed.revision


@pytest.mark.parametrize(
    "rule",
    sorted(source.rule_id for source in tree.read_tree().modules if source.rule_id),
)
def test_shipped_rule_whose_helper_is_inlined_is_caught(tmp_path: Path, rule: str) -> None:
    """The trap of docs/adr/0002 put into each shipped rule, where its domain has an optional field to put it."""
    root = tmp_path / "root"
    for source in tree.read_tree().sources:
        trees.write(root, {source.path: source.text})
    domain, name = rule.split("/")
    field = {"admission": "input.config.team", "gateway": "input.request.purpose", "bundle": "input.facts.proposal"}.get(
        domain, "input.facts.model"
    )
    file = root / "rules" / domain / name / f"{name}.rego"
    file.write_text(file.read_text() + f'\ndeny contains {{"path": "", "args": {{}}}} if not is_object({field})\n')
    traps = check_tree(root)
    assert [(trap.code, trap.path) for trap in traps] == [("undefined-under-not", str(file))]


def test_library_is_read_in_the_light_of_who_calls_it(tmp_path: Path) -> None:
    body = "package portcullis.lib.own\n\nfits(use) if not use.version in {1}\n"
    files = {**trees.files(), "lib/own/own.rego": body}
    (trap,) = check_tree(trees.write(tmp_path / "alone", files))
    assert (trap.code, trap.line) == ("undefined-under-not", 3)
    caller = "import data.portcullis.lib.own\n\n" + CHECKED
    caller += 'deny contains {"path": "", "args": {}} if {\n\tsome use in input.request.models\n\tis_string(use.version)\n\town.fits(use)\n}\n'
    folder = trees.extra(tmp_path / "extra", RULE, caller)
    assert check_tree(trees.write(tmp_path / "called", files), [folder]) == []


TANGLED = {
    "doubling at each level": (20, "[h{0}([x, 1]), h{0}([x, 2])]", "cannot be checked"),
    "deep": (40, "h{0}([x])", "deep"),
}


@pytest.mark.parametrize("name", TANGLED)
def test_helpers_too_tangled_to_follow_are_refused_in_time(tmp_path: Path, name: str) -> None:
    levels, value, said = TANGLED[name]
    helpers = "\n\n".join(f"h{i}(x) := {value.format(i + 1)}" for i in range(levels))
    body = f'{CHECKED}{helpers}\n\nh{levels}(x) := x\n\ndeny contains {{"path": "", "args": {{"x": h0(1)}}}}\n'
    traps = check_tree(trees.write(tmp_path / "root", trees.files()), [trees.extra(tmp_path / "extra", RULE, body)])
    assert [trap.code for trap in traps] == ["tangled"]
    assert traps[0].path.endswith("mine.rego")
    assert said in traps[0].message
