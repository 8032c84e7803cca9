"""Explanations: what is said of a decision is so, and a change is named only when deciding again has proved it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.decision import Decision
from policies import counterfactual
from policies.counterfactual import Change
from policies.engine import Engine, load_embedded
from policies.explain import Explanation, Reason, RuleExplained, explain
from tests.corpus import Case, cases
from tests.unit.policies import trees

ALL = {str(case): case for case in cases()}
DENIED = [case for case in ALL.values() if not case.expect.get("allow") and not case.expect.get("schema")]
STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = load_embedded()
    yield made
    made.close()


def of(engine: Engine, name: str, **put: Any) -> Explanation:
    case = ALL[name]
    document = copy.deepcopy(case.input)
    for path, value in put.items():
        target: Any = document
        *way, last = path.split("__")
        for part in way:
            target = target[part]
        target[last] = value
    return explain(engine, case.domain, document)


def rule(explanation: Explanation, rule_id: str) -> RuleExplained:
    return next(one for one in explanation.rules if one.id == rule_id)


def reasons(explanation: Explanation) -> list[Reason]:
    return [*(reason for one in explanation.rules for reason in one.reasons), *explanation.others]


def changes(explanation: Explanation) -> dict[str, Change]:
    return {change.path: change for reason in reasons(explanation) for change in reason.changes}


def read(explanation: Explanation, rule_id: str) -> dict[str, str]:
    return {fact.path: fact.shown for fact in rule(explanation, rule_id).reads}


# --- what was read ------------------------------------------------------------------------------------------------------


def test_each_fact_with_what_was_found_there(engine: Engine) -> None:
    found = read(of(engine, "admission: an update over the quota"), "admission/gpu-quota")
    assert found["facts.quota.used_shares"] == "1 GPU"
    assert found["request.gpu_shares"] == "3 GPUs"
    assert found["request.host_access"] == "an empty list"
    assert read(of(engine, "admission: no quota configured"), "admission/gpu-quota")["config.gpu_limit_shares"] == "absent"
    assert "facts.models[0].card.complete" in read(of(engine, "admission: one approval"), "admission/approved-model")


def test_of_a_long_list_only_the_first_are_looked_into(engine: Engine) -> None:
    one = ALL["admission: one approval"].input["request"]["containers"][0]
    explanation = of(engine, "admission: one approval", request__containers=[one] * 500)
    assert len(rule(explanation, "admission/approved-images").reads) < 80
    assert read(explanation, "admission/approved-images")["request.containers"] == "a list of 500"


def test_of_an_input_that_does_not_fit_no_value_is_told(engine: Engine) -> None:
    explanation = of(engine, "gateway: no grant", request__model=["s3cret"], request__version="s3cret", facts={"s3cret": 1})
    assert [reason.violation.rule for reason in explanation.others] == ["input/schema"]
    assert {one.verdict for one in explanation.rules} == {"not asked"}
    assert "s3cret" not in json.dumps(explanation.as_json())


def test_texts_are_one_line_and_not_long(engine: Engine) -> None:
    explanation = of(engine, "gateway: no grant", request__purpose="x\n\x1b[31m" + "y" * 4000)
    shown = read(explanation, "gateway/purpose")["request.purpose"]
    assert len(shown) < 200
    assert shown.isprintable()


# --- verdicts -----------------------------------------------------------------------------------------------------------


def test_the_explanation_is_of_the_decision_that_the_engine_makes(engine: Engine) -> None:
    for case in DENIED[:: len(DENIED) // 12]:
        assert (
            of(engine, str(case)).decision.as_json()["violations"]
            == engine.decide(case.domain, case.input).as_json()["violations"]
        )


def test_verdicts_of_modes_and_exemptions(engine: Engine) -> None:
    name, quota = "admission: an update over the quota", "admission/gpu-quota"
    assert rule(of(engine, name), quota).verdict == "denied"
    for mode, verdict in {"warn": "warned", "dryrun": "would deny", "off": "off", "wanr": "denied"}.items():
        told = rule(of(engine, name, config__modes={quota: mode}), quota)
        assert (told.verdict, told.mode) == (verdict, mode if verdict != "denied" else "enforce")
    exempt = rule(of(engine, "admission: exempt for all"), quota)
    assert (exempt.verdict, exempt.exemption) == ("exempted", "E1")
    assert [reason.violation.exemption for reason in exempt.reasons] == ["E1"]


def test_an_allowance_names_its_grants_and_why_each_rule_is_silent(engine: Engine) -> None:
    allowed = next(case for case in cases("gateway") if case.expect.get("allow"))
    explanation = explain(engine, "gateway", allowed.input)
    access = rule(explanation, "gateway/model-access")
    assert (access.verdict, access.grants) == ("granted", ("gateway/model-access:g1",))
    held = {one.reason: one.statement for one in rule(explanation, "gateway/purpose").held}
    assert held["missing"] == "count(purposes) > 0"
    assert {one.reason: one.statement for one in access.held}["not_registered"] == "not models.found"
    assert "{model} is revoked" in access.held[-1].messages, "what a library would have said"
    allowed_admission = rule(of(engine, "admission: exempt for all"), "admission/approved-images")
    assert {one.reason: one.statement for one in allowed_admission.held}[
        "no_digest"
    ] == "input.config.require_image_digest == true"


def test_a_rule_that_could_not_be_checked_names_what_is_missing(engine: Engine) -> None:
    explanation = of(engine, "admission: usage not known")
    assert rule(explanation, "admission/gpu-quota").verdict == "not checked"
    (other,) = explanation.others
    assert [(one.path, one.found) for one in other.unmet] == [("facts.quota", "absent")]
    found = of(engine, "admission: approvals not known").others[0].unmet
    assert [(one.path, one.found, one.wanted) for one in found] == [("facts.models[0].approvals", "absent", "a list")]


def test_a_mandatory_rule_that_was_not_asked_for_or_is_not_there(engine: Engine) -> None:
    assert "does not name it" in of(engine, "admission: a mandatory rule left out by the door").others[0].note
    assert "no rule of this name" in of(engine, "admission: a mandatory rule that nobody wrote").others[0].note


# --- what would have to change ------------------------------------------------------------------------------------------


def test_the_boundary_of_a_number(engine: Engine) -> None:
    found = changes(of(engine, "admission: an update over the quota"))
    assert {path: (change.way, change.to) for path, change in found.items()} == {
        "config.gpu_limit_shares": ("at least", 80640),
        "facts.quota.used_shares": ("at most", 0),
        "request.gpu_shares": ("at most", 40320),
    }
    assert found["request.gpu_shares"].text == "request.gpu_shares were at most 2 GPUs (it is 3 GPUs)"


EXPECTED = {
    "gateway: a revoked model": ("facts.model.revoked", "set", False),
    "gateway: an incomplete card": ("facts.model.card.complete", "set", True),
    "gateway: the card does not allow it": ("facts.model.card.purposes", "added", "search"),
    "gateway: the card restricts and no purpose is given": ("request.purpose", "set", "search"),
    "admission: another registry": ("request.containers[0].image.registry", "set", "r.example"),
    "admission: a namespace of no team": ("config.team", "given", "another-team"),
    "admission: the host's network": ("request.host_access[0]", "removed", None),
    "admission: no quota configured": ("config.gpu_limit_shares", "at least", 60480),
    "admission: consent withdrawn": ("facts.models[0].datasets[0].consent", "set", "given"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_change_that_ends_a_denial(engine: Engine, name: str) -> None:
    path, way, to = EXPECTED[name]
    found = changes(of(engine, name))[path]
    assert (found.way, found.to, found.allows) == (way, to, True)


def test_one_more_approval_is_of_another_person_over_this_manifest(engine: Engine) -> None:
    added = changes(of(engine, "gateway: one approval"))["facts.model.approvals"]
    assert (added.way, added.to["manifest_digest"], added.to["approved_at_unix"]) == ("added", "D7", 1_800_000_000)
    assert added.to["person"] not in {"ref:a", "ref:b"}


def test_a_missing_grant_names_the_grant(engine: Engine) -> None:
    added = changes(of(engine, "gateway: no grant"))["config.grants"].to
    assert (added["model"], added["teams"]) == ("llama", ["vision"])


def test_nobody_is_told_to_be_somebody_else(engine: Engine) -> None:
    for case in DENIED[:: len(DENIED) // 12]:
        for path in changes(of(engine, str(case))):
            assert not path.startswith(
                ("request.principal", "request.operation", "request.namespace", "now_unix", "mandatory")
            ), path


def applied(document: dict[str, Any], change: Change) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    steps = [int(index) if index else name for name, index in STEP.findall(change.path)]
    target: Any = changed
    for step in steps[:-1]:
        target = target[step]
    if change.way == "removed":
        del target[steps[-1]]
    elif change.way == "added":
        target[steps[-1]] = [*(target.get(steps[-1]) or []), change.to]
    else:
        target[steps[-1]] = change.to
    return changed


def given(decision: Decision) -> list[tuple[str, str, Any]]:
    return [(one.rule, one.path, one.args.get("reason")) for one in decision.violations]


@pytest.mark.parametrize("case", DENIED[:: len(DENIED) // 24], ids=str)
def test_every_change_named_is_true(engine: Engine, case: Case) -> None:
    """Decided anew by hand: the reason is gone, none came instead, and what is said of the rule and of the whole holds."""
    before = given(engine.decide(case.domain, case.input))
    for reason in reasons(explain(engine, case.domain, case.input)):
        key = (reason.violation.rule, reason.violation.path, reason.violation.args.get("reason"))
        for change in reason.changes:
            decision = engine.decide(case.domain, applied(case.input, change))
            after = given(decision)
            assert after.count(key) < before.count(key), change.text
            assert len(after) < len(before), change.text
            assert (change.allows, change.ends) == (decision.allow, key[0] not in {rule for rule, _, _ in after})
            if change.way in {"at most", "at least"}:
                beyond = change.to + (1 if change.way == "at most" else -1)
                over = engine.decide(case.domain, applied(case.input, Change(**{**_fields(change), "to": beyond})))
                assert beyond < 0 or key in given(over), change.text


def _fields(change: Change) -> dict[str, Any]:
    return {name: getattr(change, name) for name in Change.__dataclass_fields__}


def test_a_change_that_brings_another_denial_is_not_named(make: Any) -> None:
    """The purpose that the card allows is not the one that a second rule allows."""
    body = (
        "default checked := false\n\nchecked if is_object(input.request)\n\n"
        'deny contains {"path": "p", "args": {"reason": "one"}} if input.request.known_kind == true\n\n'
        'deny contains {"path": "p", "args": {"reason": "two"}} if input.request.known_kind == false\n'
    )
    explanation = explain(make(admission__approved_images=body), "admission", trees.admission_input(0))
    assert "request.known_kind" not in changes(explanation)


def test_the_search_is_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counterfactual, "MAX_TRIES", 7)
    tried: list[int] = []
    decide = Engine.decide

    def counted(self: Engine, *args: Any) -> Decision:
        tried.append(1)
        return decide(self, *args)

    monkeypatch.setattr(Engine, "decide", counted)
    explanation = of(engine, "admission: an update over the quota")
    assert len(tried) == 8  # the decision itself, then the seven
    assert any("limit" in note for note in explanation.notes)


def test_trying_leaves_nothing_in_the_engine_s_memory(engine: Engine) -> None:
    size = len(engine.memory)
    of(engine, "admission: a quota of zero")
    assert len(engine.memory) == size


# --- rules of others, and engines that fail ------------------------------------------------------------------------------


def test_a_rule_of_the_operator_is_explained_like_ours(make: Any, tmp_path: Path) -> None:
    body = (
        "default checked := false\n\nchecked if is_object(input.request)\n\n"
        'deny contains {"path": "kind", "args": {}, "message": "no jobs"} if {\n\tsome i\n'
        '\tinput.request.models[i].path == "llama" # the big one\n\tinput.request.kind == "Job"\n}\n'
    )
    extra = trees.extra(tmp_path / "own", "admission/no-jobs", body)
    document = trees.admission_input(0)
    silent = rule(explain(make(extra=(extra,)), "admission", document), "admission/no-jobs")
    assert silent.verdict == "silent"
    assert silent.held[0].statement.startswith("input.request.models[i].path ==")
    document["request"] |= {"kind": "Job", "models": [{"path": "llama"}]}
    denied = rule(explain(make(extra=(extra,)), "admission", document), "admission/no-jobs")
    assert (denied.verdict, denied.reasons[0].violation.message) == ("denied", "no jobs")
    assert {fact.path for fact in denied.reasons[0].found} == {"request.kind", "request.models[0].path"}


def test_when_the_engine_fails_that_is_the_reason(make: Any) -> None:
    made = make()
    made.close()
    explanation = explain(made, "admission", trees.admission_input(0))
    assert [reason.violation.rule for reason in explanation.others] == ["engine/unavailable"]
    assert {one.verdict for one in explanation.rules} == {"not asked"}
