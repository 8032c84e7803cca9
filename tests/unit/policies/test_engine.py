from __future__ import annotations

import asyncio
import copy
import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.canonical import canonical, digest
from core.decision import MANDATORY
from core.errors import BadInput, ConfigError
from core.settings import Policy, Settings
from policies.check import load_tree
from policies.embedded import Embedded
from policies.engine import Engine, load, load_embedded
from policies.evaluate import EngineFailure
from tests.unit.policies import trees
from tests.unit.policies.conftest import Make

BIG = 2**53


def _with(path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(trees.admission_input())
    here: Any = document
    *parents, last = path.split(".")
    for part in parents:
        here = here[part]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return document


BAD_INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "no time": (_with("now_unix", ...), "now_unix"),
    "time as text": (_with("now_unix", "1800000000"), "now_unix"),
    "time as a fraction": (_with("now_unix", 1.5), "now_unix"),
    "time before 1970": (_with("now_unix", -1), "now_unix"),
    "no mandatory list": (_with("mandatory", ...), "mandatory"),
    "mandatory as text": (_with("mandatory", "admission/gpu-quota"), "mandatory"),
    "no request": (_with("request", ...), "request"),
    "an operation that is none": (_with("request.operation", "PATCH"), "request.operation"),
    "shares as text": (_with("request.gpu_shares", "20160"), "request.gpu_shares"),
    "shares as a boolean": (_with("request.gpu_shares", True), "request.gpu_shares"),
    "negative shares": (_with("request.gpu_shares", -1), "request.gpu_shares"),
    "an unknown field": (_with("request.override", True), "request.override"),
    "an unknown field outside": (_with("allow", True), "allow"),
    "no revision": (_with("config.revision", ...), "config.revision"),
    "null where a fact is optional": (_with("facts.quota", None), "facts.quota"),
    "null inside a list": (
        _with("request.containers", [{"path": "a", "name": "b", "image": None}]),
        "request.containers[0].image",
    ),
    "a list of the wrong things": (_with("request.containers", [3]), "request.containers[0]"),
    "one approval is enough": (_with("config.required_approvals", 1), "config.required_approvals"),
}

UNWRITABLE = {
    "an integer beyond exactness": _with("now_unix", BIG),
    "not a number": _with("now_unix", float("nan")),
    "infinity": _with("now_unix", float("inf")),
    "a set": _with("mandatory", {"admission/gpu-quota"}),
    "bytes": _with("request.kind", b"Pod"),
    "a lone surrogate": _with("request.kind", "\ud800"),
    "an object": _with("request.kind", object()),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_input_outside_the_schema_is_a_denial_that_names_the_field(make: Make, name: str) -> None:
    document, path = BAD_INPUTS[name]
    decision = make().decide("admission", document)
    assert not decision.allow
    assert [(v.rule, v.path) for v in decision.violations] == [("input/schema", path)]
    assert decision.input_digest == digest(document)
    assert decision.result == {}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_input_that_json_cannot_carry_is_a_denial(make: Make, name: str) -> None:
    decision = make().decide("admission", UNWRITABLE[name])
    assert not decision.allow
    assert decision.code == "input/schema"


def test_deep_input_is_a_denial(make: Make) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert make().decide("admission", _with("request.containers", deep)).code == "input/schema"


@pytest.mark.parametrize("marked", [_with("request.operation", "MARKED-VALUE"), _with("request.kind", {"MARKED VALUE": 1})])
def test_schema_denial_never_repeats_values(make: Make, marked: dict[str, Any]) -> None:
    decision = make().decide("admission", marked)
    assert decision.code == "input/schema"
    assert "MARKED" not in str(decision.as_json()["violations"])


def test_strange_keys_are_not_repeated(make: Make) -> None:
    document = trees.admission_input()
    document["someone@example.org"] = 1
    decision = make().decide("admission", document)
    assert "someone" not in str(decision.as_json()["violations"])


def test_unknown_domain_is_bad_input(make: Make) -> None:
    with pytest.raises(BadInput, match="kitchen"):
        make().decide("kitchen", trees.admission_input())  # type: ignore[arg-type]


def test_good_input_is_allowed_with_everything_a_door_needs(make: Make) -> None:
    engine = make()
    decision = engine.decide("admission", trees.admission_input())
    assert decision.allow
    assert decision.violations == ()
    assert decision.evaluated == MANDATORY["admission"]
    assert decision.obligations == {"redact_log": True}
    assert decision.policy_revision == engine.revision
    assert decision.config_revision == "sha256:" + "1" * 64
    assert decision.engine == "embedded"
    assert decision.input_digest == digest(trees.admission_input())


async def test_async_gives_the_same(make: Make) -> None:
    engine = make()
    first = engine.decide("admission", trees.admission_input(40320))
    second = await engine.decide_async("admission", trees.admission_input(40320))
    assert canonical(first.result) == canonical(second.result)
    assert (await engine.decide_async("admission", BAD_INPUTS["no time"][0])).code == "input/schema"


def test_violation_gets_its_texts_from_metadata(make: Make) -> None:
    decision = make().decide("admission", trees.admission_input(30240))
    (violation,) = decision.violations
    assert not decision.allow
    assert violation.rule == "admission/gpu-quota"
    assert violation.message == "1.5 GPUs are asked for, 1 are allowed"
    assert (violation.severity, violation.remediation, violation.controls) == ("medium", "Ask for less.", ("test/1",))


# --- the mandatory list and grants -------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", MANDATORY["admission"])
def test_without_a_mandatory_rule_everything_is_denied_and_it_is_named(make: Make, rule: str) -> None:
    decision = make(**{rule.replace("/", "__").replace("-", "_"): None}).decide("admission", trees.admission_input(1))
    assert not decision.allow
    assert [(v.rule, v.args["rule"]) for v in decision.violations] == [("policy/mandatory", rule)]
    assert rule in decision.reason


def test_rule_that_is_not_checked_denies(make: Make) -> None:
    body = "default checked := false\n\ndeny contains {} if false\n"
    decision = make(admission__gpu_quota=body).decide("admission", trees.admission_input(1))
    assert [(v.rule, v.args) for v in decision.violations] == [("policy/mandatory", {"rule": "admission/gpu-quota"})]


@pytest.mark.parametrize("value", ['"true"', "1", "{true}", "[true]", '{"a": true}'])
def test_only_literal_true_counts_as_checked(make: Make, value: str) -> None:
    decision = make(admission__gpu_quota=f"checked := {value}\n\ndeny contains {{}} if false\n").decide(
        "admission", trees.admission_input(1)
    )
    assert decision.code == "policy/mandatory"


@pytest.mark.parametrize("mode", ["warn", "dryrun", "off"])
def test_no_mode_and_no_exemption_weakens_an_emergency_stop(make: Make, mode: str) -> None:
    exempt = {"id": "x1", "rule": "admission/frozen", "subjects": ["*"]}
    document = trees.admission_input(40320, modes={"admission/frozen": mode, "admission/gpu-quota": "off"}, exemptions=[exempt])
    decision = make(admission__frozen=trees.ADMISSION_BODY).decide("admission", document)
    assert not decision.allow
    assert [(v.rule, v.mode) for v in decision.violations] == [("admission/frozen", "enforce")]
    assert decision.warnings == ()


def test_an_engine_that_weakens_an_emergency_stop_is_not_believed(tmp_path: Path) -> None:
    warned = [{"rule": "admission/frozen", "mode": "warn", "path": "", "args": {}}]
    decision = _scripted(tmp_path, {**ALLOWED, "warnings": warned}).decide("admission", trees.admission_input())
    assert not decision.allow
    assert [v.rule for v in decision.violations] == ["engine/error"]


def test_domain_without_any_rule_denies(make: Make) -> None:
    decision = make(gateway__frozen=None, gateway__model_access=None, gateway__purpose=None).decide(
        "gateway", trees.gateway_input()
    )
    assert not decision.allow
    assert {v.args["rule"] for v in decision.violations} == set(MANDATORY["gateway"])


@pytest.mark.parametrize("listed", [[], ["admission/gpu-quota"], list(MANDATORY["admission"][:-1])])
def test_input_must_list_what_core_lists(make: Make, listed: list[str]) -> None:
    decision = make().decide("admission", {**trees.admission_input(1), "mandatory": listed})
    assert not decision.allow
    assert {v.args["rule"] for v in decision.violations} == set(MANDATORY["admission"]) - set(listed)


def test_listed_rule_that_does_not_exist_denies(make: Make) -> None:
    document = trees.admission_input(1)
    document["mandatory"].append("admission/of-our-own")
    decision = make().decide("admission", document)
    assert [(v.rule, v.args) for v in decision.violations] == [("policy/mandatory", {"rule": "admission/of-our-own"})]


def test_no_grant_is_a_denial(make: Make) -> None:
    engine = make()
    assert engine.decide("gateway", trees.gateway_input(grants=1)).grants == ("gateway/model-access:g0",)
    decision = engine.decide("gateway", trees.gateway_input(grants=0))
    assert not decision.allow
    assert [v.rule for v in decision.violations] == ["policy/grant"]


def test_grant_of_a_users_rule_does_not_count(make: Make, tmp_path: Path) -> None:
    generous = trees.extra(tmp_path / "extra", "gateway/generous", trees.QUIET_GRANT_BODY)
    engine = make(extra=(generous,))
    decision = engine.decide("gateway", trees.gateway_input(grants=0))
    assert not decision.allow
    assert decision.grants == ()
    listed = trees.gateway_input(grants=0)
    listed["mandatory"].append("gateway/generous")
    decision = engine.decide("gateway", listed)
    assert decision.grants == ("gateway/generous:always",)
    assert not decision.allow, "a rule that only the caller calls mandatory cannot grant"


def test_users_rule_can_only_tighten(make: Make, tmp_path: Path) -> None:
    strict = (
        'default checked := false\n\nchecked := true\n\ndeny contains {"path": "", "args": {}, "message": "no more today"}\n'
    )
    engine = make(extra=(trees.extra(tmp_path / "extra", "admission/strict", strict),))
    decision = engine.decide("admission", trees.admission_input(1))
    assert not decision.allow
    assert [(v.rule, v.message) for v in decision.violations] == [("admission/strict", "no more today")]


# --- modes, exemptions, malformed elements ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "allow", "warnings"),
    [("warn", True, ["warn"]), ("dryrun", True, ["dryrun"]), ("off", True, []), ("enforce", False, [])],
)
def test_modes(make: Make, mode: str, allow: bool, warnings: list[str]) -> None:
    decision = make().decide("admission", trees.admission_input(40320, modes={"admission/gpu-quota": mode}))
    assert decision.allow is allow
    assert [w.mode for w in decision.warnings] == warnings
    assert all(w.message == "2 GPUs are asked for, 1 are allowed" for w in decision.warnings)


@pytest.mark.parametrize("mode", ["Warn", "", "disabled", "exempted"])
def test_unknown_mode_enforces(make: Make, mode: str) -> None:
    decision = make().decide("admission", trees.admission_input(40320, modes={"admission/gpu-quota": mode}))
    assert [v.mode for v in decision.violations] == ["enforce"]


def test_exempted_violation_is_a_warning_that_names_the_exemption(make: Make) -> None:
    decision = make().decide(
        "admission", trees.admission_input(40320, exemptions=[{"id": "x1", "rule": "admission/gpu-quota"}])
    )
    assert decision.allow
    assert [w.mode for w in decision.warnings] == ["exempted"]
    assert [w.exemption for w in decision.warnings] == ["x1"]
    assert decision.as_json()["warnings"][0]["exemption"] == "x1"


def test_only_an_exempted_violation_names_an_exemption(make: Make) -> None:
    warned = make().decide("admission", trees.admission_input(40320, modes={"admission/gpu-quota": "warn"}))
    assert "exemption" not in warned.as_json()["warnings"][0]
    denied = make().decide("admission", trees.admission_input(40320))
    assert "exemption" not in denied.as_json()["violations"][0]


def test_exempted_violation_of_a_rule_that_is_off_says_nothing(make: Make) -> None:
    config = {"exemptions": [{"id": "x1", "rule": "admission/gpu-quota"}], "modes": {"admission/gpu-quota": "off"}}
    decision = make().decide("admission", trees.admission_input(40320, **config))
    assert (decision.allow, decision.warnings) == (True, ())


MALFORMED = {
    "text": '"just text"',
    "a number": "3",
    "no path": '{"args": {"a": 1}}',
    "path of a number": '{"path": 3, "args": {}}',
    "args of a list": '{"path": "x", "args": [1]}',
    "message of a number": '{"path": "x", "args": {}, "message": 3}',
    "null": "null",
    "a set": "{1, 2}",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_reason_is_still_a_violation(make: Make, name: str) -> None:
    body = f"default checked := false\n\nchecked := true\n\ndeny contains {MALFORMED[name]}\n"
    decision = make(admission__gpu_quota=body).decide("admission", trees.admission_input(1))
    assert not decision.allow
    assert [v.rule for v in decision.violations] == ["admission/gpu-quota"]


def test_output_is_sorted_and_the_same_every_time(make: Make, tmp_path: Path) -> None:
    body = (
        "default checked := false\n\nchecked := true\n\n"
        'deny contains {"path": p, "args": {"n": n}} if {\n\tsome p in ["z", "a"]\n\tsome n in [2, 1]\n}\n'
    )
    folders = (trees.extra(tmp_path / "x", "admission/a-rule", body), trees.extra(tmp_path / "y", "admission/b-rule", body))
    engine = make(extra=folders)
    results = {canonical(engine.decide("admission", trees.admission_input(40320)).result) for _ in range(5)}
    assert len(results) == 1
    found = engine.decide("admission", trees.admission_input(40320)).violations
    keys = [(v.rule, v.path, v.args.get("n", 0)) for v in found]
    assert keys == sorted(keys)
    assert len(keys) == 9


# --- answers nobody should believe ----------------------------------------------------------------------------------

RULES = MANDATORY["admission"]
ALLOWED: dict[str, Any] = {
    "allow": True, "evaluated": list(RULES), "grants": [], "violations": [], "warnings": [], "obligations": {},
}  # fmt: skip
ENTRY = {"rule": "admission/gpu-quota", "mode": "enforce", "path": "", "args": {}}

BAD_ANSWERS: dict[str, Any] = {
    "nothing": None,
    "undefined as regorus writes it": "<undefined>",
    "true": True,
    "a list": [ALLOWED],
    "no allow": {k: v for k, v in ALLOWED.items() if k != "allow"},
    "allow of text": {**ALLOWED, "allow": "true"},
    "allow of one": {**ALLOWED, "allow": 1},
    "no evaluated": {k: v for k, v in ALLOWED.items() if k != "evaluated"},
    "evaluated of text": {**ALLOWED, "evaluated": "admission/gpu-quota"},
    "no obligations": {k: v for k, v in ALLOWED.items() if k != "obligations"},
    "obligations of a list": {**ALLOWED, "obligations": []},
    "an unknown field": {**ALLOWED, "really": True},
    "a violation beside allow": {**ALLOWED, "violations": [ENTRY]},
    "a violation that warns": {**ALLOWED, "violations": [{**ENTRY, "mode": "warn"}]},
    "a warning that enforces": {**ALLOWED, "warnings": [ENTRY]},
    "a violation of text": {**ALLOWED, "violations": ["no"]},
    "a violation without args": {**ALLOWED, "violations": [{"rule": "x", "mode": "enforce", "path": ""}]},
    "denied without a reason": {**ALLOWED, "allow": False},
}


class Answers:
    """An engine that answers what it is told, or fails as it is told."""

    name = "scripted"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def evaluate(self, domain: str, document: bytes) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def evaluate_async(self, domain: str, document: bytes) -> Any:
        return self.evaluate(domain, document)

    def close(self) -> None:
        self.answer = None


def _scripted(tmp_path: Path, answer: Any) -> Engine:
    return Engine(load_tree(trees.write(tmp_path, trees.files())), Answers(answer))


def test_believable_answer_is_allowed(tmp_path: Path) -> None:
    assert _scripted(tmp_path, ALLOWED).decide("admission", trees.admission_input()).allow


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_answer_that_is_not_the_agreed_document_denies(tmp_path: Path, name: str) -> None:
    engine = _scripted(tmp_path, BAD_ANSWERS[name])
    for decision in (
        engine.decide("admission", trees.admission_input()),
        await engine.decide_async("admission", trees.admission_input()),
    ):
        assert not decision.allow
        assert decision.code == "engine/error"
        assert decision.violations[0].severity == "critical"


@pytest.mark.parametrize("rule", RULES)
def test_allow_does_not_count_when_a_mandatory_rule_was_not_evaluated(tmp_path: Path, rule: str) -> None:
    answer = {**ALLOWED, "evaluated": [r for r in RULES if r != rule]}
    decision = _scripted(tmp_path, answer).decide("admission", trees.admission_input())
    assert not decision.allow
    assert decision.result["allow"] is True
    assert [v.args["rule"] for v in decision.violations] == [rule]


@pytest.mark.parametrize("grants", [[], ["gateway/generous:x"], ["gateway/model-access"], ["x:gateway/model-access:"]])
def test_allow_does_not_count_without_a_grant_of_a_mandatory_rule(tmp_path: Path, grants: list[str]) -> None:
    answer = {**ALLOWED, "evaluated": list(MANDATORY["gateway"]), "grants": grants}
    decision = _scripted(tmp_path, answer).decide("gateway", trees.gateway_input())
    assert [v.rule for v in decision.violations] == ["policy/grant"]


@pytest.mark.parametrize(
    "failure",
    [
        EngineFailure("engine/error", problem="broken"),
        EngineFailure("engine/timeout", deadline_ms=10),
        EngineFailure("engine/unavailable", problem="gone"),
        EngineFailure("engine/revision", found="a", expected="b"),
        EngineFailure("engine/builtins", problem="http.send"),
    ],
    ids=lambda failure: failure.rule,
)
async def test_failures_are_denials_that_say_which(tmp_path: Path, failure: EngineFailure) -> None:
    engine = _scripted(tmp_path, failure)
    for decision in (
        engine.decide("admission", trees.admission_input()),
        await engine.decide_async("admission", trees.admission_input()),
    ):
        assert not decision.allow
        assert decision.code == failure.rule
        assert decision.evaluated == ()
        assert "{" not in decision.reason


def test_error_inside_a_rule_is_a_denial_without_the_values(make: Make) -> None:
    body = "default checked := false\n\nchecked := true\n\ndeny contains {} if input.request.namespace + 1 > 2\n"
    decision = make(admission__gpu_quota=body).decide("admission", trees.admission_input(1))
    assert not decision.allow
    assert decision.code == "engine/error"
    assert "gpu-quota.rego" in decision.reason
    assert "team-a" not in decision.reason


# --- the embedded engine --------------------------------------------------------------------------------------------


def test_threads_and_loops_share_one_engine(make: Make) -> None:
    engine = make()
    answers: list[bool] = []

    def work(shares: int) -> None:
        decisions = [engine.decide("admission", trees.admission_input(shares)) for _ in range(5)]
        answers.extend(decision.allow is (shares <= 20160) for decision in decisions)
        answers.append(asyncio.run(engine.decide_async("admission", trees.admission_input(shares))).allow is (shares <= 20160))

    threads = [threading.Thread(target=work, args=(20160 * (1 + i % 2),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 36


def test_slow_evaluation_is_a_denial(tmp_path: Path) -> None:
    body = (
        "default checked := false\n\nchecked := true\n\n"
        "row := [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]\n\n"
        "deny contains {} if {\n\tsome a in row\n\tsome b in row\n\tsome c in row\n\tsome d in row\n\ta + b + c + d > 80\n}\n"
    )
    loaded = load_tree(trees.write(tmp_path, trees.files(admission__gpu_quota=body)))
    engine = Engine(loaded, Embedded(loaded.bundle.modules, deadline_ms=1))
    decision = engine.decide("admission", trees.admission_input(1))
    engine.close()
    assert decision.code == "engine/timeout"
    assert "1 ms" in decision.reason


def test_forked_process_without_the_engines_thread_denies_instead_of_hanging(make: Make) -> None:
    engine = make()
    child = os.fork()
    if child == 0:  # pragma: no cover  (the child's coverage is not collected)
        decision = engine.decide("admission", trees.admission_input())
        os._exit(0 if decision.code == "engine/unavailable" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert engine.decide("admission", trees.admission_input()).allow


def test_document_the_interpreter_cannot_read_is_a_failure_not_a_hang() -> None:
    embedded = Embedded({"a.rego": "package portcullis.admission\n\ndecision := 1\n"})
    for _ in range(2):
        with pytest.raises(EngineFailure):
            embedded.evaluate("admission", b"{")
    assert embedded.evaluate("admission", b"{}") == 1
    embedded.close()


def test_modules_that_do_not_parse_refuse_to_start() -> None:
    with pytest.raises(ConfigError, match="line 4"):
        Embedded({"a.rego": "package portcullis.admission\n\ndecision := {\n"})


@pytest.mark.parametrize("document", [[], [1], "text", 3, None])
def test_input_that_is_no_object_is_a_denial(make: Make, document: Any) -> None:
    assert make().decide("admission", document).code == "input/schema"


def test_closed_engine_denies(make: Make) -> None:
    engine = make()
    engine.close()
    engine.close()
    assert engine.decide("admission", trees.admission_input()).code == "engine/unavailable"


def test_engine_nobody_closes_ends_its_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # the threads themselves: an ended one's number is given again
    engine = load_embedded(trees.write(tmp_path, trees.files()))
    (started,) = set(threading.enumerate()) - before
    del engine
    gc.collect()
    started.join(timeout=5)
    assert not started.is_alive()


def test_load_takes_the_operators_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load(Settings(policy=Policy(extra=[str(tmp_path / "nowhere")])))


# --- laws -----------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PATHS = [
    "now_unix", "mandatory", "request", "facts", "config", "request.gpu_shares", "request.principal", "request.kind",
    "request.containers", "facts.quota", "facts.models", "config.modes", "config.exemptions", "config.revision",
]  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    engine = load_embedded(trees.write(tmp_path_factory.mktemp("tree"), trees.files()))
    yield engine
    engine.close()


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(PATHS), value=JSON)
def test_any_value_anywhere_gives_a_decision_and_a_denial_always_says_why(shared: Engine, path: str, value: Any) -> None:
    decision = shared.decide("admission", _with(path, value))
    assert decision.allow is (decision.violations == ())
    assert all(v.message and v.remediation for v in decision.violations)


@settings(max_examples=100, deadline=None)
@given(shares=st.integers(0, 2**53 - 1))
def test_decisions_repeat_byte_for_byte(shared: Engine, shares: int) -> None:
    first, second = (shared.decide("admission", trees.admission_input(shares)) for _ in range(2))
    assert canonical(first.result) == canonical(second.result)
    assert first.allow is (shares <= 20160)
    assert first.decision_id < second.decision_id
