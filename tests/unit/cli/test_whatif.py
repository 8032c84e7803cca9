"""`policy whatif` over a real log: the shipped rules, a recorder, a sequencer, and bundles beside what was recorded."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from core.canonical import sha256
from core.decision import Domain, Violation
from core.ids import uuid7
from evidence.recorder import EvidenceRecorder
from policies.bundle import Bundle
from policies.check import load_modules
from policies.distribution import build
from policies.engine import Engine, load_embedded
from tests.corpus import cases
from tests.simulators.ports import FixedClock
from tests.unit.policies import trees

NOW = int(time.time())
DAY = 86_400
TOO_OFTEN = """\
default checked := false

checked if is_string(input.request.model)

deny contains {"path": "request.model", "args": {"what": input.request.model}} if input.request.model == "gpt"
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = load_embedded()
    yield made
    made.close()


@dataclass
class House:
    """A state folder in which decisions are recorded, and the command line over it."""

    engine: Engine
    recorder: EvidenceRecorder
    clock: FixedClock
    capsys: pytest.CaptureFixture[str]

    def decide(
        self, input: dict[str, Any], domain: Domain = "gateway", *, tenant: str = "acme", as_domain: str = "", **change: Any
    ) -> str:
        decision = replace(self.engine.decide(domain, input), decision_id=uuid7(), **change)
        if as_domain:
            decision = replace(decision, domain=as_domain)  # type: ignore[arg-type]  # of another version
        kind = "inference.intent" if domain == "gateway" else "admission"
        asyncio.run(self.recorder.decision(kind, decision, input, actor="ref:a", tenant=tenant, subject="s"))  # type: ignore[arg-type]
        return decision.decision_id

    def call(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(list(arguments))
        captured = self.capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    def whatif(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        status, out, _ = self.call("policy", "whatif", *arguments, "--json")
        return status, json.loads(out)

    def digests(self, decision_id: str) -> dict[str, str]:
        from evidence.reader import Reader

        return dict(Reader(Path(".portcullis/evidence")).find(decision_id).record["digests"])


def kept_as(digest: str) -> Path:
    (file,) = Path(".portcullis/evidence/inputs").rglob(digest.removeprefix("sha256:"))
    return file


@pytest.fixture
def house(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[House]:
    monkeypatch.chdir(tmp_path)
    clock = FixedClock(NOW)
    recorder = EvidenceRecorder(Path(".portcullis/evidence"), clock=clock)
    made = House(engine, recorder, clock, capsys)
    assert made.call("init")[0] == 0
    yield made
    recorder.close()


BASE = next(case.input for case in cases("gateway") if case.expect.get("allow"))


def asked(model: str = "llama", team: str = "vision") -> dict[str, Any]:
    """An allowed call of this model by this team."""
    found = copy.deepcopy(BASE)
    found["request"]["model"] = found["facts"]["model"]["name"] = found["config"]["grants"][0]["model"] = model
    found["request"]["principal"]["team"] = team
    found["config"]["grants"][0]["teams"] = [team]
    return found


def write_bundle(engine: Engine, path: str, edit: Callable[[dict[str, str]], Any] = lambda modules: None) -> str:
    modules = dict(engine.bundle.modules)
    edit(modules)
    Path(path).write_bytes(build(load_modules(Bundle(modules)), wasm=None, tests=1))
    return path


def never_granted(modules: dict[str, str]) -> None:
    name = "rules/gateway/model-access/model-access.rego"
    before = modules[name]
    modules[name] = before.replace(
        "grant contains", 'grant contains "none" if input.request.model == "nothing"\n\nunused contains'
    )
    assert modules[name] != before


def test_nothing_changes_under_the_bundle_that_decided(house: House) -> None:
    house.decide(asked())
    house.decide(asked("gpt"))
    status, found = house.whatif(write_bundle(house.engine, "same.tar.gz"))
    assert (status, found["decisions"], found["inputs"], found["unchanged"], found["changed"]) == (0, 2, 2, 2, 0)
    assert (found["decisions_changed"], found["cannot"], found["notes"]) == ([], [], [])


def test_an_own_rule_changes_exactly_what_it_denies(house: House) -> None:
    trees.extra(Path("own"), "gateway/too-often", TOO_OFTEN)
    house.decide(asked())
    denied = [house.decide(asked("gpt", team)) for team in ("vision", "search", "vision")]
    status, found = house.whatif("--extra", "own", "-o", "all.json")
    assert status == 1
    assert json.loads(Path("all.json").read_text()) == found
    assert house.whatif("--extra", "own")[1]["decisions_changed"] == found["decisions_changed"]
    house.call("policy", "whatif", "--extra", "own", "-o", "again.json")
    assert json.loads(Path("again.json").read_text())["decisions_changed"] == found["decisions_changed"]
    assert [change["decision_id"] for change in found["decisions_changed"]] == denied
    assert found["changes"]["newly_denied"] == {"decisions": 3, "inputs": 2, "examples": denied[:2]}
    assert [(row["rule"], row["change"], row["decisions"]) for row in found["by_rule"]] == [
        ("gateway/too-often", "newly_denied", 3)
    ]
    assert [(row["team"], row["decisions"], row["inputs"]) for row in found["by_team"]] == [("vision", 2, 1), ("search", 1, 1)]
    assert [(row["model"], row["decisions"]) for row in found["by_model"]] == [("gpt@7", 3)]
    shown = house.call("policy", "whatif", "--extra", "own")[1]
    for text in ("1 unchanged, 3 changed, 0 cannot", "newly denied", "gateway/too-often", "search", "gpt@7", denied[0]):
        assert text in shown


def test_a_looser_bundle_than_the_one_that_decided(house: House) -> None:
    strict = write_bundle(house.engine, "strict.tar.gz", never_granted)
    loose = write_bundle(house.engine, "loose.tar.gz")
    status, found = house.whatif(loose, "--baseline", strict)
    assert (status, found["decisions"]) == (1, 0), "nothing to compare is no agreement"
    house.decide(asked())
    status, found = house.whatif(loose, "--baseline", strict)
    assert (status, found["changes"]["newly_allowed"]["decisions"]) == (1, 1)
    assert found["baseline"]["source"] == "strict.tar.gz"
    assert house.whatif(strict)[1]["changes"]["newly_denied"]["decisions"] == 1
    assert house.whatif(strict, "--baseline", strict)[0] == 0


def test_only_the_time_the_tenant_and_the_domain_asked_for(house: House) -> None:
    bundle = write_bundle(house.engine, "b.tar.gz")
    admitted = next(case.input for case in cases("admission") if case.expect.get("allow"))
    for age, tenant in ((20 * DAY, "acme"), (3 * DAY, "acme"), (3 * DAY, "other"), (60, "acme")):
        house.clock.now = NOW - age
        house.decide(asked(), tenant=tenant)
    house.decide(admitted, "admission")
    day = time.strftime("%Y-%m-%d", time.gmtime(NOW - 20 * DAY))
    counts = {
        (): 4,
        ("--since", "2d"): 2,
        ("--since", "4w"): 5,
        ("--since", "10m"): 2,
        ("--from", day, "--to", day): 1,
        ("--from", day): 5,
        ("--to", day): 1,
        ("--tenant", "other"): 1,
        ("--tenant", "nobody"): 0,
        ("--domain", "admission"): 1,
        ("--domain", "gateway", "--tenant", "acme"): 2,
    }
    assert {options: house.whatif(bundle, *options)[1]["decisions"] for options in counts} == counts


def test_what_cannot_be_compared_is_counted_and_is_no_agreement(house: House) -> None:
    bundle = write_bundle(house.engine, "b.tar.gz")
    timeout = (Violation("engine/timeout", "enforce", "", {}),)
    kept = house.decide(asked())
    tampered = house.decide(asked("gpt"))
    house.decide(asked("third"), allow=False, violations=timeout)
    house.decide({"now_unix": 1})
    house.decide(asked(), input_digest="", policy_revision="")
    house.decide(asked("fourth"), policy_revision="")
    house.call("evidence", "sequence", "--once")
    file = kept_as(house.digests(tampered)["input"])
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    status, found = house.whatif(bundle)
    assert {row["code"]: row["decisions"] for row in found["cannot"]} == {
        "engine_failed": 1,
        "input_lost": 1,
        "no_input": 2,
        "schema": 1,
    }
    assert (status, found["unchanged"], found["compared"], found["decisions"]) == (0, 1, 1, 6)
    assert next(row for row in found["cannot"] if row["code"] == "input_lost")["examples"] == [tampered]
    shown = house.call("policy", "whatif", bundle)[1]
    assert "1 unchanged, 0 changed, 5 cannot be compared" in shown
    assert "the input cannot be opened" in shown
    kept_as(house.digests(kept)["input"]).unlink()
    status, found = house.whatif(bundle)
    assert (status, found["compared"]) == (1, 0)
    assert "nothing was compared" in house.call("policy", "whatif", bundle)[1]


def test_a_record_that_names_another_input_than_its_decision_is_not_compared() -> None:
    """The record names one input and its decision another: which one was decided on is not known."""
    record = {"tenant": "acme", "time": 1, "digests": {"input": sha256(b"x")}, "decision": {"domain": "gateway"}}
    record["decision"] |= {"decision_id": "d", "input_digest": sha256(b"y"), "policy_revision": "r"}
    from cli.whatif import _decision

    found = _decision(None, record, record["decision"], whole=True)  # type: ignore[arg-type]
    assert (found.cannot, found.outcome) == ("other_input", None)


def test_a_disk_that_does_not_answer_is_not_an_input_that_is_gone(house: House) -> None:
    """What may come back is no finding: the command stops and says so."""
    bundle = write_bundle(house.engine, "b.tar.gz")
    made = house.decide(asked())
    house.call("evidence", "sequence", "--once")
    file = kept_as(house.digests(made)["input"])
    file.unlink()
    file.mkdir()
    status, out, err = house.call("policy", "whatif", bundle)
    assert (status, out) == (3, "")
    assert "cannot be read" in err


def test_a_decision_of_a_domain_that_this_version_does_not_have_is_counted(house: House) -> None:
    house.decide(asked())
    house.decide(asked("gpt"), as_domain="of-tomorrow")
    status, found = house.whatif(write_bundle(house.engine, "b.tar.gz"))
    assert (status, found["decisions"], found["compared"]) == (0, 2, 1)
    assert [row["code"] for row in found["cannot"]] == ["unreadable"]


def test_a_decision_too_large_for_a_leaf_is_compared_whole(house: House) -> None:
    many = tuple(Violation("gateway/purpose", "enforce", f"{n}", {"x": "y" * 300}) for n in range(300))
    made = house.decide(asked(), allow=False, violations=many)
    bundle = write_bundle(house.engine, "b.tar.gz")
    status, found = house.whatif(bundle)
    assert (status, found["changes"]["newly_allowed"]["examples"]) == (1, [made])
    kept_as(house.digests(made)["decision"]).unlink()
    assert [row["code"] for row in house.whatif(bundle)[1]["cannot"]] == ["decision_lost"]


def test_a_bundle_of_another_version_is_said_to_be_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.decide(asked())
    with monkeypatch.context() as other:
        other.setitem(__import__("policies.distribution").distribution.MANDATORY, "gateway", ("gateway/model-access",))  # type: ignore[arg-type]
        bundle = write_bundle(house.engine, "b.tar.gz")
    status, found = house.whatif(bundle)
    assert (status, len(found["notes"])) == (0, 1)
    assert "other mandatory rules" in found["notes"][0]
    assert "note: the new bundle was built by a version" in house.call("policy", "whatif", bundle)[1]


WRONG = {
    "no bundle and no folder": ((), 2),
    "both": (("b.tar.gz", "--extra", "own"), 2),
    "no such file": (("none.tar.gz",), 2),
    "a broken bundle": (("broken.tar.gz",), 1),
    "a broken baseline": (("b.tar.gz", "--baseline", "broken.tar.gz"), 1),
    "a folder that is not there": (("--extra", "none"), 2),
    "no length of time": (("b.tar.gz", "--since", "yesterday"), 2),
    "no length": (("b.tar.gz", "--since", "0d"), 2),
    "two ways to name a time": (("b.tar.gz", "--since", "1d", "--from", "2026-11-01"), 2),
    "no day": (("b.tar.gz", "--from", "1.11.2026"), 2),
    "no domain": (("b.tar.gz", "--domain", "mail"), 2),
    "nowhere to write": (("b.tar.gz", "-o", "none/all.json"), 2),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(house: House, name: str) -> None:
    arguments, expected = WRONG[name]
    house.decide(asked())
    data = Path(write_bundle(house.engine, "b.tar.gz")).read_bytes()
    Path("broken.tar.gz").write_bytes(data[:-40])
    trees.extra(Path("own"), "gateway/too-often", TOO_OFTEN)
    status, out, err = house.call("policy", "whatif", *arguments)
    assert (status, out) == (expected, "")
    assert err


def test_what_an_input_says_cannot_write_to_the_terminal(house: House) -> None:
    trees.extra(Path("own"), "gateway/too-often", TOO_OFTEN.replace('== "gpt"', '!= "x"'))
    house.decide(asked(team="[red]a\x1b[31m\nb"))
    shown = house.call("policy", "whatif", "--extra", "own")[1]
    assert "[red]a [31m b" in shown
