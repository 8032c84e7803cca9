"""Recorded decisions explained: under the policies that decided, or honestly under others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from api.explain import explained
from core.decision import Decision
from core.errors import NotFound
from tests.corpus import cases
from tests.unit.api.conftest import Api

NO = next(case for case in cases("gateway") if case.name == "the card does not allow it")


async def record(api: Api, decision: Decision, document: dict[str, Any], tenant: str = "acme") -> str:
    recorder = api.served.management.recorder
    made = await recorder.decision("inference.intent", decision, document, actor="ref:1", tenant=tenant, subject="llama@7")
    api.recorded()
    return made


def evidence(api: Api) -> Path:
    return Path(api.served.management.settings.evidence.dir)


def by(api: Api) -> Any:
    return lambda: api.served.engine.base


async def test_under_the_policies_that_decided(api: Api) -> None:
    decision = api.served.engine.decide("gateway", NO.input)
    made = await record(api, decision, NO.input)
    for wanted in (made, decision.decision_id):
        told = explained(evidence(api), wanted, by(api))
        assert (told.allow, told.same_policies, told.explanation.notes) == (False, True, ())
        assert told.explanation.decision.violations == decision.violations


async def test_without_its_bundle_it_says_under_which_it_explains(api: Api) -> None:
    decision = api.served.engine.decide("gateway", NO.input)
    older = "sha256:" + "0" * 64
    recorded = Decision(**{name: getattr(decision, name) for name in Decision.__slots__} | {"policy_revision": older})
    told = explained(evidence(api), await record(api, recorded, NO.input), by(api))
    assert not told.same_policies
    assert older in told.explanation.notes[0]
    assert api.served.engine.revision in told.explanation.notes[0]


async def test_a_decision_that_comes_out_otherwise_now_says_so(api: Api) -> None:
    decision = api.served.engine.decide("gateway", NO.input)
    recorded = Decision(**{name: getattr(decision, name) for name in Decision.__slots__} | {"allow": True, "violations": ()})
    told = explained(evidence(api), await record(api, recorded, NO.input), by(api))
    assert told.allow
    assert told.explanation.notes == ("It was allowed when it was recorded; made again it differs in allow, violations.",)


async def test_what_is_not_there_cannot_be_explained(api: Api) -> None:
    made = await record(api, api.served.engine.decide("gateway", NO.input), NO.input)
    shutil.rmtree(evidence(api) / "inputs")
    with pytest.raises(NotFound, match="not kept"):
        explained(evidence(api), made, by(api))
    with pytest.raises(NotFound):
        explained(evidence(api), "0190-nothing", by(api))
    note = await api.served.management.recorder.note("review", actor="ref:1", tenant="acme", subject="x", text="t")
    api.recorded()
    with pytest.raises(NotFound, match="not one of a decision"):
        explained(evidence(api), note, by(api))


@pytest.mark.parametrize(("role", "status"), [("admin", 200), ("auditor", 200), ("operator", 403), ("approver", 403)])
async def test_who_may_see_an_explanation(api: Api, role: str, status: int) -> None:
    made = await record(api, api.served.engine.decide("gateway", NO.input), NO.input)
    answer = await api.call("GET", f"/api/v1/decisions/{made}", await api.key(role), params={"explain": "true"})
    assert answer.status_code == status
    assert ("explanation" in answer.json()) == (status == 200)
    if status == 200:
        purpose = next(rule for rule in answer.json()["explanation"]["rules"] if rule["rule"] == "gateway/purpose")
        assert purpose["reasons"][0]["changes"][0]["allows"] is True
        assert answer.json()["id"] == made


async def test_another_tenants_decision_is_not_explained(api: Api) -> None:
    made = await record(api, api.served.engine.decide("gateway", NO.input), NO.input)
    stranger = await api.key("auditor", tenant="other")
    assert (await api.call("GET", f"/api/v1/decisions/{made}", stranger, params={"explain": "true"})).status_code == 404


async def test_without_asking_there_is_no_explanation(api: Api) -> None:
    made = await record(api, api.served.engine.decide("gateway", NO.input), NO.input)
    answer = await api.call("GET", f"/api/v1/decisions/{made}", await api.key("operator"))
    assert (answer.status_code, "explanation" in answer.json()) == (200, False)
