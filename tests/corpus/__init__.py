"""Inputs with the decision that each must get, written from the rules' meaning; every engine is held to them.

A file has a `base` input and `cases`. A case changes the base (`set`: path to value, `remove`: paths) and states what must
come out: `allow: true`, or `deny` (rule, and the args that matter), or `missing` (mandatory rules that cannot be checked), or
`schema: true` (it does not fit the domain's type, so no engine may see it). `warn`, `grants` and `obligations` are compared
where they stand. `wrong_type` and `required` list paths of which each makes cases by itself: the value replaced by one of a
wrong type, by null, or taken away, must fail the schema. A value `{repeat: TEXT, times: N}` is that text, N times.

`faults` are changes of which each breaks one rule, whatever else is broken. They make cases by what faults mean: two that touch
different places are both denied; and where the mode of a fault's rule is not `enforce`, or an exemption counts, the fault is
only told, and the decision is `unenforced` (allowed; in lineage, where the rule grants only what it has nothing against, not granted).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from core import yamlread
from core.decision import DOMAINS, Decision, Domain
from policies import corpus
from policies.corpus import Expect

HERE = Path(__file__).parent
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class Case:
    domain: Domain
    name: str
    input: dict[str, Any]
    expect: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.domain}: {self.name}"


def cases(domain: Domain | None = None) -> Iterator[Case]:
    for found in DOMAINS if domain is None else (domain,):
        document = yamlread.load((HERE / f"{found}.yaml").read_text("utf-8"), where=f"{found}.yaml")
        base = document["base"]
        for path in document["wrong_type"]:
            yield Case(found, f"{path} of a wrong type", _changed(base, {path: {"wrong": [True]}}, []), {"schema": True})
            yield Case(found, f"{path} is null", _changed(base, {path: None}, []), {"schema": True})
        for path in document["required"]:
            yield Case(found, f"{path} missing", _changed(base, {}, [path]), {"schema": True})
        for case in document["cases"]:
            expect = {key: value for key, value in case.items() if key not in {"name", "set", "remove"}}
            yield Case(found, case["name"], _changed(base, case.get("set", {}), case.get("remove", [])), expect)
        faults = [_Fault.read(fault) for fault in document.get("faults", [])]
        yield from _alone(found, base, faults, document.get("unenforced", {}))
        yield from _together(found, base, faults)


@dataclass(frozen=True)
class _Fault:
    name: str
    put: dict[str, Any]
    removed: list[str]
    deny: dict[str, Any]

    @classmethod
    def read(cls, entry: dict[str, Any]) -> _Fault:
        return cls(entry["name"], entry.get("set", {}), entry.get("remove", []), entry["deny"])

    def meets(self, other: _Fault) -> bool:
        """Whether both change the same place, or one the place that the other's lies in."""
        return any(
            a == b or a.startswith((f"{b}.", f"{b}[")) or b.startswith((f"{a}.", f"{a}["))
            for a in (*self.put, *self.removed)
            for b in (*other.put, *other.removed)
        )


def _alone(domain: Domain, base: dict[str, Any], faults: list[_Fault], unenforced: dict[str, Any]) -> Iterator[Case]:
    """Each fault enforced, and under everything that takes its force away."""
    for fault in faults:
        rule = fault.deny["rule"]
        broken = _changed(base, fault.put, fault.removed)
        yield Case(domain, f"fault: {fault.name}", broken, {"deny": [fault.deny]})
        for mode in ("warn", "dryrun", "off"):
            told = [] if mode == "off" else [{"rule": rule, "mode": mode}]
            yield Case(
                domain,
                f"{mode}: {fault.name}",
                _changed(broken, {"config.modes": {rule: mode}}, []),
                {**unenforced, "warn": told},
            )
        exemption = {"id": "E", "rule": rule, "owner": "ref:o", "reason_given": True, "ticket": "T", "expires_unix": 2**53 - 1}
        changed = _changed(broken, {"config.exemptions": [{**exemption, "subjects": ["*"]}]}, [])
        yield Case(
            domain,
            f"exempted: {fault.name}",
            changed,
            {**unenforced, "warn": [{"rule": rule, "mode": "exempted", "exemption": "E"}]},
        )


def _together(domain: Domain, base: dict[str, Any], faults: list[_Fault]) -> Iterator[Case]:
    """Every two faults that do not touch the same place, and as many as there are."""
    for one, other in combinations(faults, 2):
        if not one.meets(other):
            broken = _changed(_changed(base, one.put, one.removed), other.put, other.removed)
            yield Case(domain, f"{one.name}, and {other.name}", broken, {"deny": [one.deny, other.deny]})
    chosen: list[_Fault] = []
    broken = base
    for fault in faults:
        if not any(fault.meets(other) for other in chosen):
            chosen.append(fault)
            broken = _changed(broken, fault.put, fault.removed)
    if chosen:
        yield Case(domain, f"{len(chosen)} faults at once", broken, {"deny": [fault.deny for fault in chosen]})


def _changed(base: dict[str, Any], put: dict[str, Any], removed: list[str]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for path, value in put.items():
        here, last = _reach(result, path)
        if isinstance(here, list) and last == len(here):
            here.append(_value(value))
        else:
            here[last] = _value(value)
    for path in removed:
        here, last = _reach(result, path)
        del here[last]
    return result


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"repeat", "times"}:
            return value["repeat"] * value["times"]
        return {key: _value(item) for key, item in value.items()}
    return [_value(item) for item in value] if isinstance(value, list) else value


def _reach(document: Any, path: str) -> tuple[Any, Any]:
    steps: list[Any] = [int(index) if index else name for name, index in _STEP.findall(path)]
    here = document
    for step in steps[:-1]:
        here = here[step]
    return here, steps[-1]


def differences(case: Case, decision: Decision) -> list[str]:
    """What in `decision` is not as the case says; empty when it is right."""
    return corpus.differences(Expect.model_validate(case.expect), decision)


def lines() -> Iterator[str]:
    """The corpus as `policy bundle build --inputs` takes it (`python -m tests.corpus`), without what JSON cannot carry (NaN)."""
    for case in cases():
        try:
            yield json.dumps({"domain": case.domain, "input": case.input, "expect": case.expect}, allow_nan=False)
        except ValueError:
            continue
