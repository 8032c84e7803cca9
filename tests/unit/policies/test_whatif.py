"""Recorded decisions beside another bundle: what changes, what does not, and what honestly cannot be said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.canonical import canonical, sha256
from core.decision import Domain
from core.errors import BadInput, NotFound
from core.inputs import INPUTS, GatewayInput
from policies.check import load_tree
from policies.recompute import Candidate, Judge, Outcome, Recompute, outcome
from policies.whatif import Change, Recorded, Report, compare, difference
from tests.unit.policies import trees

STRICTER = trees.ADMISSION_BODY.replace("> 20160", "> 10080").replace('"limit": 20160', '"limit": 10080')
LOOSER = trees.ADMISSION_BODY.replace("> 20160", "> 90000").replace('"limit": 20160', '"limit": 90000')


def candidate(folder: Path, **changes: str | None) -> Candidate:
    return Candidate(load_tree(trees.write(folder, trees.files(**changes))))


class Kept:
    """Inputs by digest, in memory; counts how often each is opened."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.opened: list[str] = []

    def payload(self, tenant: str, digest: str) -> bytes:
        self.opened.append(digest)
        if digest not in self.data:
            raise NotFound("erased")
        return self.data[digest]


class Story:
    """Decisions made under the small tree, as a log would hand them in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.old = candidate(folder / "old")
        self.inputs = Kept()
        self.recorded: list[Recorded] = []
        self._judge = Judge([self.old])

    def decide(self, document: dict[str, Any], domain: Domain = "admission", *, made: Outcome | None = None) -> str:
        data = canonical(document)
        digest = sha256(data)
        self.inputs.data[digest] = data
        (now,) = self._judge((domain, data)).outcomes or (None,)
        decision_id = f"d{len(self.recorded)}"
        self.recorded.append(Recorded(decision_id, "acme", domain, 1_800_000_000, digest, made or now))
        return decision_id

    def close(self) -> None:
        self._judge.close()

    def whatif(self, *candidates: Candidate, changes: list[Change] | None = None, **more: Any) -> Report:
        with Recompute(candidates, **more) as recompute:
            each = None if changes is None else changes.append
            return compare(self.recorded, self.inputs, recompute, between=len(candidates) == 2, each=each)


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    made = Story(tmp_path)
    for shares in (100, 15_000, 20_160, 20_161, 40_000):
        for model in ("a", "b"):
            document = trees.admission_input(shares, team="vision" if shares < 20_000 else "search")
            document["request"]["models"] = [{"path": "m", "name": model, "version": "7"}]
            made.decide(document)
    made.decide(trees.gateway_input(), "gateway")
    yield made
    made.close()


def cannot(report: Report) -> dict[str, int]:
    return {code: tally.decisions for code, tally in report.cannot.items()}


def test_the_same_bundle_changes_nothing(story: Story) -> None:
    report = story.whatif(story.old)
    assert (report.decisions, report.inputs, report.unchanged, report.changed, cannot(report)) == (11, 11, 11, 0, {})
    assert report.same


def test_a_stricter_rule_changes_exactly_these(story: Story, tmp_path: Path) -> None:
    changes: list[Change] = []
    report = story.whatif(candidate(tmp_path / "new", admission__gpu_quota=STRICTER), changes=changes)
    found = {change.recorded.decision_id: change.kind for change in changes}
    assert found == {
        **dict.fromkeys(("d2", "d3", "d4", "d5"), "newly_denied"),
        **dict.fromkeys(("d6", "d7", "d8", "d9"), "other_reasons"),
    }
    assert (report.unchanged, report.changed, report.same) == (3, 8, False)
    document = report.as_json()
    assert document["by_rule"] == [
        {"rule": "admission/gpu-quota", "change": "newly_denied", "decisions": 4, "inputs": 4, "examples": ["d2", "d3", "d4", "d5"]},
        {"rule": "admission/gpu-quota", "change": "other_reasons", "decisions": 4, "inputs": 4, "examples": ["d6", "d7", "d8", "d9"]},
    ]  # fmt: skip
    assert [(row["team"], row["change"], row["decisions"]) for row in document["by_team"]] == [
        ("search", "other_reasons", 4),
        ("search", "newly_denied", 2),
        ("vision", "newly_denied", 2),
    ]
    assert {(row["model"], row["decisions"]) for row in document["by_model"]} == {("a@7", 2), ("b@7", 2)}


def test_a_looser_rule_shows_what_it_lets_in(story: Story, tmp_path: Path) -> None:
    report = story.whatif(candidate(tmp_path / "new", admission__gpu_quota=LOOSER))
    assert report.kinds["newly_allowed"].examples == ["d6", "d7", "d8", "d9"]
    assert (report.changed, report.unchanged) == (4, 7)


def test_a_new_rule_that_finds_nothing_changes_nothing(story: Story, tmp_path: Path) -> None:
    assert story.whatif(candidate(tmp_path / "new", admission__quiet=trees.SILENT_BODY)).same


def test_obligations_alone_are_a_change_of_their_own(story: Story, tmp_path: Path) -> None:
    tree = trees.files()
    tree["lib/obligations/obligations.rego"] = trees.OBLIGATIONS.replace("true", "false")
    report = story.whatif(Candidate(load_tree(trees.write(tmp_path / "new", tree))))
    assert report.kinds["other_obligations"].decisions == report.decisions
    assert report.by_rule == {}


def test_a_grant_that_goes_is_named_with_what_denies(story: Story, tmp_path: Path) -> None:
    never = trees.GRANT_BODY.replace(
        "some found in input.config.grants", "{ some found in input.config.grants; found.id == 0 }"
    )
    report = story.whatif(candidate(tmp_path / "new", gateway__model_access=never))
    assert {(name, kind) for name, kind in report.by_rule} == {
        ("gateway/model-access", "newly_denied"),
        ("policy/grant", "newly_denied"),
    }


def test_two_bundles_over_the_same_inputs_whatever_was_recorded(story: Story, tmp_path: Path) -> None:
    other = outcome({"allow": False, "violations": [], "warnings": [], "grants": [], "obligations": {}})
    story.decide(trees.admission_input(7), made=other)
    new = candidate(tmp_path / "new", admission__gpu_quota=LOOSER)
    assert story.whatif(story.old, new).changed == 4
    assert story.whatif(new, new).same
    assert story.whatif(story.old).changed == 1


def test_each_distinct_input_is_opened_and_decided_once(story: Story, tmp_path: Path) -> None:
    story.recorded *= 30
    report = story.whatif(candidate(tmp_path / "new", admission__gpu_quota=STRICTER))
    tally = report.kinds["newly_denied"]
    assert (report.decisions, report.inputs, tally.decisions, len(tally.inputs)) == (330, 11, 120, 4)
    assert sorted(story.inputs.opened) == sorted(story.inputs.data)
    assert len(set(tally.examples)) == len(tally.examples) == 4


def test_batches_of_any_size_give_the_same(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story.recorded *= 3
    new = candidate(tmp_path / "new", admission__gpu_quota=STRICTER)
    whole = story.whatif(new).as_json()
    for name in ("BATCH_INPUTS", "BATCH_DECISIONS", "BATCH_BYTES"):
        monkeypatch.setattr(f"policies.whatif.{name}", 1)
        assert story.whatif(new).as_json() == whole
        monkeypatch.undo()


def test_several_judges_give_what_one_gives(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.whatif.BATCH_INPUTS", 4)
    new = candidate(tmp_path / "new", admission__gpu_quota=STRICTER)
    with Recompute([new], alone=5, judges=3) as recompute:
        report = compare(story.recorded, story.inputs, recompute)
        assert recompute.judges == 3
    assert report.as_json() == story.whatif(new, judges=1).as_json()


LOOP = """\
default checked := false

checked if is_number(input.request.gpu_shares)

deny contains {"path": "x", "args": {}} if {
	input.request.gpu_shares == 7
	many := split(input.request.namespace, "-")
	some a in many
	some b in many
	some c in many
	some d in many
	some e in many
	a != b
	c != d
	e == "never"
}
"""


def test_a_rule_that_does_not_end_is_stopped_and_found(story: Story, tmp_path: Path) -> None:
    endless = trees.admission_input(7)
    endless["request"]["namespace"] = "-".join(f"w{n}" for n in range(100))
    made = story.decide(endless)
    loaded = load_tree(trees.write(tmp_path / "new", trees.files()), [trees.extra(tmp_path / "own", "admission/loop", LOOP)])
    report = story.whatif(Candidate(loaded))
    assert (report.kinds["newly_denied"].examples, report.unchanged) == ([made], 11)
    assert set(report.by_rule) >= {("engine/timeout", "newly_denied")}


# --- what cannot be compared --------------------------------------------------------------------------------------------


def test_an_input_that_is_gone(story: Story) -> None:
    del story.inputs.data[story.recorded[0].input_digest]
    story.recorded.append(story.recorded[0])
    report = story.whatif(story.old)
    assert (cannot(report), report.unchanged) == ({"input_lost": 2}, 10)


def test_what_the_record_says_is_nothing_to_compare(story: Story) -> None:
    story.recorded = [Recorded("d", "acme", "gateway", 1, "", None, "no_input")]
    report = story.whatif(story.old)
    assert (cannot(report), report.compared, report.inputs) == ({"no_input": 1}, 0, 0)
    assert not report.same, "nothing compared is no agreement"


def failed(rule: str) -> Outcome:
    entry = {"rule": rule, "mode": "enforce", "path": "", "args": {}}
    return outcome({"allow": False, "violations": [entry], "warnings": [], "grants": [], "obligations": {}})


@pytest.mark.parametrize(("rule", "code"), [("engine/timeout", "engine_failed"), ("input/schema", "schema")])
def test_a_denial_that_no_policy_made(story: Story, rule: str, code: str) -> None:
    story.recorded.clear()
    story.decide(trees.admission_input(1), made=failed(rule))
    assert cannot(story.whatif(story.old)) == {code: 1}


def test_the_new_bundles_own_failure_is_a_denial(story: Story, tmp_path: Path) -> None:
    """At a door it would be one, so it must not hide among what cannot be compared."""
    report = story.whatif(Candidate(story.old.loaded, deadline_ms=-1))
    assert {rule for rule, _ in report.by_rule} == {"engine/timeout", "admission/gpu-quota", "gateway/model-access"}
    assert report.kinds["newly_denied"].decisions == 7
    assert cannot(story.whatif(Candidate(story.old.loaded, deadline_ms=-1), story.old)) == {"engine_failed": 11}


UNFIT = {
    "not JSON": (b"{", "unreadable"),
    "a field this version does not know": (canonical({**trees.admission_input(1), "more": 1}), "schema"),
    "a field missing": (canonical({"now_unix": 1}), "schema"),
    "other mandatory rules": (canonical({**trees.admission_input(1), "mandatory": ["admission/gpu-quota"]}), "mandatory"),
}


@pytest.mark.parametrize("case", UNFIT.values(), ids=UNFIT)
def test_inputs_that_this_version_cannot_judge(story: Story, case: tuple[bytes, str]) -> None:
    data, code = case
    allowed = story.recorded[0].outcome
    story.recorded = [Recorded("d", "acme", "admission", 1, sha256(data), allowed)]
    story.inputs.data[sha256(data)] = data
    assert cannot(story.whatif(story.old)) == {code: 1}


def test_inputs_recorded_before_a_field_was_added_are_compared_and_before_a_demanded_one_are_not(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(GatewayInput):
        region: str = "anywhere"

    class Demanding(GatewayInput):
        region: str

    story.recorded = [story.recorded[-1]]
    monkeypatch.setitem(INPUTS, "gateway", Later)
    assert story.whatif(story.old).same
    monkeypatch.setitem(INPUTS, "gateway", Demanding)
    report = story.whatif(story.old)
    assert (cannot(report), report.same) == ({"schema": 1}, False)


# --- outcomes -----------------------------------------------------------------------------------------------------------

ENTRY = {"rule": "a/b", "mode": "enforce", "path": "p", "args": {"n": 1}}
DENIED = {"allow": False, "violations": [ENTRY], "warnings": [], "grants": ["a/g:1"], "obligations": {"x": 1}}
DIFFERENT: dict[str, tuple[dict[str, Any], Any]] = {
    "allowed": ({"allow": True, "violations": []}, ("newly_allowed", ("a/b",))),
    "another rule": ({"violations": [{**ENTRY, "rule": "a/c"}]}, ("other_reasons", ("a/b", "a/c"))),
    "another path": ({"violations": [{**ENTRY, "path": "q"}]}, ("other_reasons", ("a/b",))),
    "other args": ({"violations": [{**ENTRY, "args": {"n": True}}]}, ("other_reasons", ("a/b",))),
    "one more": ({"violations": [ENTRY, {**ENTRY, "rule": "a/c"}]}, ("other_reasons", ("a/c",))),
    "a warning": ({"warnings": [{**ENTRY, "mode": "dryrun"}]}, ("other_reasons", ("a/b",))),
    "another grant": ({"grants": ["a/g:2"]}, ("other_reasons", ("a/g",))),
    "an obligation": ({"obligations": {"x": 2}}, ("other_obligations", ())),
    "nothing": ({}, None),
    "a message": ({"violations": [{**ENTRY, "message": "of today"}]}, None),
    "rules evaluated": ({"evaluated": ["a/z"]}, None),
}


@pytest.mark.parametrize("case", DIFFERENT.values(), ids=DIFFERENT)
def test_differences(case: tuple[dict[str, Any], Any]) -> None:
    more, expected = case
    assert difference(outcome(DENIED), outcome({**DENIED, **more})) == expected


def test_the_order_of_entries_is_no_difference() -> None:
    entries = [ENTRY, {**ENTRY, "rule": "a/c"}]
    grants = ["a/g:1", "a/g:2"]
    first, second = ({**DENIED, "violations": entries[::way], "grants": grants[::way]} for way in (1, -1))
    assert difference(outcome(first), outcome(second)) is None


@pytest.mark.parametrize("document", [{}, {**DENIED, "violations": [{}]}, {**DENIED, "grants": 1}])
def test_what_is_no_decision_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        outcome(document)
