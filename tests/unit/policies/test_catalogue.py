from __future__ import annotations

import pytest

from core.errors import BadInput
from policies.catalogue import read_rule
from tests.unit.policies import trees

GOOD = trees.module("admission/gpu-quota", trees.ADMISSION_BODY)


def test_everything_is_read() -> None:
    rule = read_rule("a.rego", GOOD, "admission/gpu-quota")
    assert (rule.id, rule.domain, rule.title, rule.severity) == ("admission/gpu-quota", "admission", "gpu-quota", "medium")
    assert rule.message == "{asked} GPUs are asked for, {limit} are allowed"
    assert rule.messages == {"other": "something else: {what}"}
    assert rule.units == {"asked": "gpu", "limit": "gpu"}
    assert rule.controls == ("test/1",)
    assert rule.mandatory
    assert not read_rule("a.rego", GOOD, "admission/mine").mandatory


BAD = {
    "none": ("# METADATA\n", "# SOMETHING\n", "no METADATA"),
    "after the package": (trees.METADATA.format(title="gpu-quota"), "", "no METADATA"),
    "a blank line before the package": ("package portcullis", "\npackage portcullis", "no METADATA"),
    "no title": ("# title: gpu-quota\n", "", "title"),
    "no description": ("# description: A rule of the tests.\n", "", "description"),
    "no message": ('#   message: "{asked} GPUs are asked for, {limit} are allowed"\n', "", "custom.message"),
    "no remediation": ("#   remediation: Ask for less.\n", "", "custom.remediation"),
    "no controls": ("#   controls: [test/1]\n", "", "custom.controls"),
    "controls of text": ("[test/1]", "test/1", "custom.controls"),
    "a control of a number": ("[test/1]", "[1]", "custom.controls"),
    "a severity that is none": ("severity: medium", "severity: awful", "custom.severity"),
    "an empty message": ('"{asked} GPUs are asked for, {limit} are allowed"', '""', "custom.message"),
    "a unit that is none": ("asked: gpu", "asked: litres", "custom.units"),
    "a key that is none": ("severity: medium", "severity: medium\n#   sevrity: low", "custom.sevrity"),
    "another scope": ("# title:", "# scope: rule\n# title:", "scope"),
    "not YAML": ("# title: gpu-quota", "# title: [", "not YAML"),
    "a key twice": ("# title: gpu-quota", "# title: a\n# title: b", "twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_incomplete_metadata_is_refused_and_named(name: str) -> None:
    old, new, expected = BAD[name]
    assert old in GOOD
    with pytest.raises(BadInput) as caught:
        read_rule("a.rego", GOOD.replace(old, new, 1), "admission/gpu-quota")
    assert expected in str(caught.value)
    assert "a.rego:" in str(caught.value)
