"""Rules and exemptions counted over recorded decisions."""

from __future__ import annotations

from typing import Any

import pytest

from policies.catalogue import Catalogue, Rule
from policies.coverage import RuleTraffic, count


def rule(name: str) -> Rule:
    return Rule(name, name.split("/")[0], "t", "d", "high", "m", "r", "p")


CATALOGUE = Catalogue.of([rule("admission/a"), rule("admission/b"), rule("gateway/c")])


def entry(name: str, mode: str = "enforce", **more: str) -> dict[str, Any]:
    return {"rule": name, "mode": mode, "path": "", "args": {}, **more}


def decision(*entries: dict[str, Any], evaluated: tuple[str, ...] = ("admission/a", "admission/b")) -> dict[str, Any]:
    return {
        "evaluated": list(evaluated),
        "violations": [one for one in entries if one["mode"] == "enforce"],
        "warnings": [one for one in entries if one["mode"] != "enforce"],
    }


def test_decisions_are_counted_not_entries() -> None:
    one = entry("admission/a")
    found = count([(10, decision(one, one)), (20, decision())], CATALOGUE).rules["admission/a"]
    assert (found.evaluated, found.fired, found.denied, found.share, found.last_fired_unix) == (2, 1, 1, 0.5, 10)


@pytest.mark.parametrize(
    ("mode", "field"), [("enforce", "denied"), ("warn", "warned"), ("dryrun", "dryrun"), ("exempted", "exempted")]
)
def test_each_mode_counts_apart(mode: str, field: str) -> None:
    found = count([(1, decision(entry("admission/a", mode)))], CATALOGUE).rules["admission/a"]
    counts = {name: getattr(found, name) for name in ("denied", "warned", "dryrun", "exempted")}
    assert counts == {**dict.fromkeys(counts, 0), field: 1}


def test_silent_rules_of_the_catalogue_are_listed() -> None:
    found = count([(1, decision(entry("admission/a"))), (2, decision(entry("admission/a")))], CATALOGUE).rules
    assert {name: one.state for name, one in found.items()} == {
        "admission/a": "always fires",
        "admission/b": "never fired",
        "gateway/c": "never evaluated",
    }


def test_a_rule_of_older_policies_is_marked() -> None:
    found = count([(1, decision(evaluated=("admission/gone",)))], CATALOGUE).rules["admission/gone"]
    assert (found.state, found.evaluated) == ("not in force", 1)


def test_what_no_rule_said_is_counted_by_reason() -> None:
    traffic = count([(1, decision(entry("policy/grant"))), (2, decision(entry("door/busy"), evaluated=()))], CATALOGUE)
    assert traffic.others == {"policy/grant": 1, "door/busy": 1}
    assert set(traffic.rules) == {"admission/a", "admission/b", "gateway/c"}


def test_a_rule_that_spoke_without_being_checked_never_shares_more_than_all() -> None:
    found = count([(1, decision(entry("admission/a"), evaluated=()))], CATALOGUE).rules["admission/a"]
    assert (found.evaluated, found.share) == (1, 1.0)
    assert RuleTraffic("x").share is None


def test_uses_of_an_exemption_are_decisions_with_the_last_time() -> None:
    used = entry("admission/a", "exempted", exemption="E1")
    other = entry("admission/b", "exempted", exemption="E2")
    traffic = count([(30, decision(used, used)), (20, decision(used, other)), (40, decision())], CATALOGUE)
    assert {name: (uses.count, uses.last_unix) for name, uses in traffic.exemptions.items()} == {"E1": (2, 30), "E2": (1, 20)}
