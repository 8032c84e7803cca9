"""What a user's folder may do to ours: add denials. Every attempt at more is refused, or changes no decision for the laxer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.decision import DOMAINS, Decision, Domain
from core.errors import ConfigError
from policies.check import check_tree
from policies.engine import Engine, load_embedded
from tests.corpus import cases
from tests.unit.policies import trees

CHECKED = "default checked := false\n\nchecked if is_number(input.now_unix)\n\n"
QUIET = CHECKED + "deny contains {} if false\n"
PLACE = "rules/admission/mine/mine.rego"


def rule(body: str, rule_id: str = "admission/mine") -> dict[str, str]:
    name = rule_id.split("/")[1]
    return {f"rules/{rule_id}/{name}.rego": trees.module(rule_id, body)}


def elsewhere(package: str, body: str, place: str = PLACE) -> dict[str, str]:
    text = trees.module("admission/mine", body)
    return {place: text.replace('portcullis.rules.admission["mine"]', package)}


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "a definition more in our rule's package": (elsewhere('portcullis.rules.admission["gpu-quota"]', QUIET), "package"),
    "a definition more in the aggregator": (elsewhere("portcullis.admission", f"{QUIET}\nallow := true\n"), "package"),
    "a definition more in the library of modes": (elsewhere("portcullis.lib.modes", f'{QUIET}\nmode(_) := "off"\n'), "package"),
    "a definition more in the library of exemptions": (elsewhere("portcullis.lib.exemptions", f'{QUIET}\nid(_) := "x"\n'), "package"),
    "our parent package, whose name for a rule is ours": (
        elsewhere("portcullis.rules.admission", f'{QUIET}\n"gpu-quota" := {{"checked": true}}\n'), "parse"
    ),
    "the whole tree's package": (elsewhere("portcullis", f'{QUIET}\nadmission := {{"decision": {{"allow": true}}}}\n'), "package"),
    "no package of the tree": (elsewhere("system.authz", QUIET), "package"),
    "our rule's name": (rule(QUIET, "admission/gpu-quota"), "taken"),
    "our rule's name with a second file": (
        {"rules/admission/gpu-quota/more.rego": trees.module("admission/gpu-quota", QUIET)}, "taken"
    ),
    "our rule's name in capitals": (rule(QUIET, "admission/GPU-quota"), "place"),
    "our library": ({"lib/modes/modes.rego": trees.MODES}, "taken"),
    "a library of its own": ({"lib/mine/mine.rego": "package portcullis.lib.mine\n\nx := 1\n"}, "place"),
    "a generated module": ({"generated/admission.rego": "package portcullis.admission\n\nallow := true\n"}, "place"),
    "a rule's place in no domain": ({"rules/generated/admission/admission.rego": "package portcullis.admission\n"}, "place"),
    "a replaced input": (rule(f"{CHECKED}deny contains {{}} if count(input.mandatory) == 0 with input as {{}}\n"), "with"),
    "a replaced library": (
        rule(f'{CHECKED}deny contains {{}} if is_string("x") with data.portcullis.lib.modes as {{}}\n'), "with"
    ),
    "a built-in by its own name": (rule(f"{QUIET}\ncount(_) := 0\n"), "reserved-name"),
    "an import that takes a built-in's name": (
        {PLACE: trees.module("admission/mine", f"import data.portcullis.lib.models as object\n\n{QUIET}")}, "reserved-name"
    ),
    "data that is not of the tree": (rule(f"{CHECKED}deny contains {{}} if data.secrets.x\n"), "data"),
    "the decision itself, which would go round in a circle": (
        rule(f"{CHECKED}deny contains {{}} if data.portcullis.admission.allow\n"), "data"
    ),
    "a grant that is no set": (rule(f"{CHECKED}grant := true\n"), "grant"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_reaching_into_ours_is_refused_and_says_why(tmp_path: Path, name: str) -> None:
    files, code = REFUSED[name]
    folder = trees.write(tmp_path, files)
    findings = check_tree(extra=[folder])
    assert code in {finding.code for finding in findings}, findings
    assert all(str(tmp_path) in finding.path for finding in findings), "ours are not blamed"
    with pytest.raises(ConfigError):
        load_embedded(extra=[folder])


HARMLESS: dict[str, tuple[Domain, str]] = {
    "a grant for everybody": ("gateway", f'{CHECKED}grant contains "always"\n'),
    "a grant that looks like ours": ("gateway", f'{CHECKED}grant contains "gateway/model-access:g1"\n'),
    "a grant of a key": ("weights", f'{CHECKED}grant contains "weights/key-release:g1"\n'),
    "a grant of an approval": ("lineage", f'{CHECKED}grant contains "approval"\n'),
    "an allow of its own": ("admission", f'{QUIET}\ndefault allow := true\n\ndecision := {{"allow": true}}\n'),
    "a mode of its own": ("admission", f'{QUIET}\nmode(_) := "off"\n\nmodes := {{"admission/gpu-quota": "off"}}\n'),
    "names that the aggregator uses": (
        "admission", f"{QUIET}\nviolations := set()\n\ndenials := set()\n\nevaluated := set()\n\nexempted(_) := true\n"
    ),
    "a denial in our name, switched off": (
        "admission",
        f'{CHECKED}deny contains {{"rule": "admission/gpu-quota", "mode": "off", "path": "", "args": {{}}, "exemption": "EX"}}\n',
    ),
    "a denial that is no object": ("admission", f"{CHECKED}deny contains 1\n\ndeny contains null\n\ndeny contains [{{}}]\n"),
    "a denial of wrong types": ("admission", f'{CHECKED}deny contains {{"path": 1, "args": [], "message": {{}}}}\n'),
    "never checked": ("admission", "default checked := false\n\nchecked if false\n\ndeny contains {} if false\n"),
    "checked that is no truth": ("admission", 'checked := "yes"\n\ndeny contains {} if false\n'),
    "checked with two values": (
        "admission",
        "checked := true if input.now_unix > 0\n\nchecked := false if input.now_unix > 0\n\ndeny contains {} if false\n",
    ),
    "a function with two answers": (
        "admission", f'{CHECKED}f(_) := 1\n\nf(_) := 2\n\ndeny contains {{"path": "", "args": {{}}}} if f(input.now_unix) == 3\n'
    ),
    "an error inside": ("admission", f"{CHECKED}deny contains {{}} if count(input.now_unix) == 0\n"),
    "the name of a domain": ("admission", QUIET),
}  # fmt: skip
"""What loads. Whatever it does, no input that ours deny may be allowed, and nothing that ours found may be missing."""


@pytest.fixture(scope="module")
def plain() -> Iterator[dict[Domain, list[tuple[dict[str, Any], Decision]]]]:
    engine = load_embedded()
    yield {
        domain: [
            (case.input, engine.decide(domain, case.input))
            for case in list(cases(domain))[::9]
            if not case.expect.get("schema")
        ]
        for domain in DOMAINS
    }
    engine.close()


def found(decision: Decision) -> set[str]:
    return {f"{v.rule} {v.path} {sorted(v.args.items(), key=str)}" for v in decision.violations if "/mine" not in v.rule}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_loads_loosens_nothing(
    tmp_path: Path, name: str, plain: dict[Domain, list[tuple[dict[str, Any], Decision]]]
) -> None:
    domain, body = HARMLESS[name]
    engine: Engine = load_embedded(extra=[trees.write(tmp_path, rule(body, f"{domain}/mine"))])
    try:
        for document, before in plain[domain]:
            after = engine.decide(domain, document)
            assert before.allow or not after.allow, document
            broken = after.code.startswith("engine/")
            assert broken or found(before) - {"policy/grant"} <= found(after) | {"policy/grant"}
            assert broken or before.grants == tuple(grant for grant in after.grants if "/mine:" not in grant)
            assert [warning.rule for warning in before.warnings] == [
                w.rule for w in after.warnings if "/mine" not in w.rule
            ] or broken
    finally:
        engine.close()


def test_own_rule_denies_like_one_of_ours_and_has_a_mode_and_exemptions_like_one(tmp_path: Path) -> None:
    body = f'{CHECKED}deny contains {{"path": "spec", "args": {{}}}}\n'
    engine = load_embedded(extra=[trees.write(tmp_path, rule(body))])
    document = next(case.input for case in cases("admission") if case.expect.get("allow"))
    try:
        assert [v.rule for v in engine.decide("admission", document).violations] == ["admission/mine"]
        for mode in ("warn", "dryrun"):
            warned = {**document, "config": {**document["config"], "modes": {"admission/mine": mode}}}
            decision = engine.decide("admission", warned)
            assert (decision.allow, [w.rule for w in decision.warnings]) == (True, ["admission/mine"])
    finally:
        engine.close()
