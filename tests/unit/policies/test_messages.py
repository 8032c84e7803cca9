from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.answer import Entry
from policies.catalogue import Catalogue, read_rule
from policies.messages import OWN_RULES, explain, own_violation, render
from tests.unit.policies import trees

CATALOGUE = Catalogue.of([read_rule("a.rego", trees.module("admission/gpu-quota", ""), "admission/gpu-quota")])

RENDERED = {
    "text": ("{a}", {"a": "x"}, "x"),
    "a number": ("{a}", {"a": 3}, "3"),
    "true": ("{a}", {"a": True}, "true"),
    "a list": ("{a}", {"a": ["x", "y"]}, "x, y"),
    "an object": ("{a}", {"a": {"k": 1}}, "k=1"),
    "null": ("{a}", {"a": None}, "none"),
    "shares": ("{g}", {"g": 8640}, "3/7"),
    "a list of shares": ("{g}", {"g": [20160, 10080]}, "1, 0.5"),
    "a unit over text": ("{g}", {"g": "many"}, "many"),
    "a boolean with a unit": ("{g}", {"g": True}, "true"),
    "a name that is not there": ("{b} {a}", {"a": 1}, "{b} 1"),
    "a value that looks like a template": ("{a}", {"a": "{b}", "b": "secret"}, "{b}"),
    "attributes": ("{a.__class__} {a[0]} {a!r} {a:>9}", {"a": "x"}, "{a.__class__} {a[0]} {a!r} {a:>9}"),
    "double braces": ("{{a}}", {"a": "x"}, "{x}"),
    "control characters": ("{a}", {"a": "x\r\ny\x1b[31m"}, "x  y [31m"),
    "direction characters": ("{a}", {"a": "x\u202ey"}, "x y"),
}


@pytest.mark.parametrize("name", RENDERED)
def test_render(name: str) -> None:
    template, args, expected = RENDERED[name]
    assert render(template, args, {"g": "gpu"}) == expected


def test_message_is_chosen_by_reason() -> None:
    entry = Entry(rule="admission/gpu-quota", mode="enforce", path="", args={"reason": "other", "what": "w"})
    assert explain(CATALOGUE, entry).message == "something else: w"
    unknown = entry.model_copy(update={"args": {"reason": "unheard of", "asked": 20160, "limit": 0}})
    assert explain(CATALOGUE, unknown).message == "1 GPUs are asked for, 0 are allowed"
    strange = entry.model_copy(update={"args": {"reason": ["other"]}})
    assert "GPUs" in explain(CATALOGUE, strange).message


def test_users_message_stands_and_is_cut_and_cleaned() -> None:
    entry = Entry(rule="admission/mine", mode="enforce", path="", args={}, message="no\n{a}" + "x" * 5000)
    message = explain(CATALOGUE, entry).message
    assert message.startswith("no {a}x")
    assert len(message) == 1000


def test_rule_without_catalogue_entry_is_still_named() -> None:
    assert (
        explain(CATALOGUE, Entry(rule="admission/mine", mode="enforce", path="", args={})).message == "denied by admission/mine"
    )


@given(st.dictionaries(st.sampled_from("abc"), st.text() | st.integers() | st.lists(st.text()), max_size=3), st.text())
def test_rendering_never_fails_and_is_one_line(args: dict[str, object], template: str) -> None:
    message = render(template + " {a} {b}", args)
    assert len(message) <= 1000
    assert "\n" not in message


@pytest.mark.parametrize("rule", OWN_RULES)
def test_own_reasons_have_severity_message_and_remedy(rule: str) -> None:
    violation = own_violation(rule, "here", problem="p", rule="r", found="f", expected="e", deadline_ms=1)
    assert violation.severity in {"high", "critical"}
    assert "{" not in violation.message
    assert violation.remediation
    assert violation.path == "here"
