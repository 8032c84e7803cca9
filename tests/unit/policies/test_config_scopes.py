"""Modes and exemptions narrowed by tenant, team, namespace and model: which one counts, and that dead ones never do."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import ConfigError
from core.inputs import AdmissionConfig, GatewayConfig
from core.names import ModelRef
from core.principal import Principal
from policies.config_lookup import Lookup
from policies.config_overlay import Layer, keyed, overlay, revision, validate
from policies.engine import Engine, load_embedded
from tests.corpus import cases
from tests.simulators.ports import MemoryCommitments

LLAMA, GPT = ModelRef("llama", "7"), ModelRef("gpt", "1")
TENANTS = {
    "acme": {"teams": {"vision": {"namespaces": ["vision"]}, "speech": {"namespaces": ["speech"]}}},
    "other": {"teams": {"vision": {"namespaces": ["theirs"]}}},
}
RULE = "admission/gpu-quota"


def lookup(**sections: Any) -> Lookup:
    layers = [Layer("file", keyed({"tenants": TENANTS, **sections}))]
    merged = overlay(layers)
    return Lookup(validate(merged, layers), revision(merged), MemoryCommitments(), home="acme")


async def admission(
    found: Lookup, namespace: str = "vision", *models: ModelRef, subject: str = "Deployment/chat"
) -> AdmissionConfig:
    return await found.admission(namespace, subject=subject, caller="jane", models=models)


async def gateway(found: Lookup, team: str | None = "vision", ref: ModelRef = LLAMA, tenant: str = "acme") -> GatewayConfig:
    return await found.gateway(Principal("key:K1", "caller", tenant, team=team), ref)


SCOPES = {"tenant": "acme", "team": "vision", "namespace": "vision", "model": "llama"}


def rank(scope: tuple[str, ...]) -> tuple[bool, ...]:
    """The stated precedence: the model before the namespace before the team before the tenant."""
    return tuple(name in scope for name in ("model", "namespace", "team", "tenant"))


ALL = [scope for size in range(5) for scope in itertools.combinations(SCOPES, size) if "team" not in scope or "tenant" in scope]


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(ALL, 2)), ids=lambda scope: "+".join(scope) or "general")
async def test_of_two_modes_the_narrower_counts(one: tuple[str, ...], two: tuple[str, ...]) -> None:
    modes = [
        {"rule": RULE, "mode": mode, **{name: SCOPES[name] for name in scope}} for scope, mode in ((one, "warn"), (two, "off"))
    ]
    expected = "warn" if rank(one) > rank(two) else "off"
    for order in (modes, modes[::-1]):
        assert (await admission(lookup(modes=order), "vision", LLAMA)).modes == {RULE: expected}


@pytest.mark.parametrize("scope", ALL[1:], ids="+".join)
async def test_a_narrowed_mode_counts_nowhere_else(scope: tuple[str, ...]) -> None:
    found = lookup(modes=[{"rule": RULE, "mode": "off", **{name: SCOPES[name] for name in scope}}])
    elsewhere = {
        "tenant": ("theirs", LLAMA),
        "team": ("speech", LLAMA),
        "namespace": ("speech", LLAMA),
        "model": ("vision", GPT),
    }
    for name in scope:
        namespace, ref = elsewhere[name]
        assert (await admission(found, namespace, ref)).modes == {}
    if "model" in scope:
        assert (await admission(found, "vision")).modes == {}


async def test_a_version_wins_over_its_model() -> None:
    modes = [
        {"rule": "gateway/purpose", "mode": "off", "model": "llama"},
        {"rule": "gateway/purpose", "mode": "enforce", "model": "llama@7"},
    ]
    found = lookup(modes=modes)
    assert (await gateway(found)).modes == {}
    assert (await gateway(found, ref=ModelRef("llama", "8"))).modes == {"gateway/purpose": "off"}


async def test_the_callers_team_narrows_at_the_gateway() -> None:
    found = lookup(modes=[{"rule": "gateway/purpose", "mode": "warn", "tenant": "acme", "team": "vision"}])
    assert (await gateway(found)).modes == {"gateway/purpose": "warn"}
    assert (await gateway(found, team="speech")).modes == {}
    assert (await gateway(found, team=None)).modes == {}
    assert (await gateway(found, tenant="other")).modes == {}


@pytest.mark.parametrize(
    ("llama", "gpt", "expected"),
    [
        ("off", "warn", "warn"),
        ("off", "off", "off"),
        ("dryrun", "off", "dryrun"),
        ("warn", None, None),
        ("off", "enforce", None),
    ],
)
async def test_of_several_models_the_strictest_mode_counts(llama: str, gpt: str | None, expected: str | None) -> None:
    """A model that nobody loosened keeps its rule for the whole workload."""
    modes = [{"rule": RULE, "mode": mode, "model": name} for name, mode in (("llama", llama), ("gpt", gpt)) if mode]
    for order in ((LLAMA, GPT), (GPT, LLAMA)):
        found = await admission(lookup(modes=modes), "vision", *order)
        assert found.modes.get(RULE) == expected


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a team of no tenant": ({"modes": [{"rule": RULE, "mode": "off", "team": "vision"}]}, "name the tenant too"),
    "a team that is not there": (
        {"modes": [{"rule": RULE, "mode": "off", "tenant": "other", "team": "speech"}]},
        "no team speech",
    ),
    "a model that is no name": ({"modes": [{"rule": RULE, "mode": "off", "model": "a b"}]}, "model name"),
    "a version that is no name": ({"modes": [{"rule": RULE, "mode": "off", "model": "a@"}]}, "model version"),
    "an exemption of another's team": (
        {"exemptions": [{"id": "E", "rule": RULE, "tenant": "other", "teams": ["speech"], "subjects": ["*"]}]},
        "no team speech",
    ),
    "an exemption of a model that is no name": (
        {"exemptions": [{"id": "E", "rule": RULE, "tenant": "other", "models": ["*"], "subjects": ["*"]}]},
        "model name",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_scope_that_means_nothing_is_refused(name: str) -> None:
    sections, message = BAD[name]
    with pytest.raises(ConfigError, match=message):
        lookup(**sections)


def exemption(id: str = "E", rule: str = RULE, **more: Any) -> dict[str, Any]:
    full = {"owner": "ann", "reason": "moving", "ticket": "T-1", "expires": "2100-01-01T00:00:00Z", "subjects": ["*"]}
    return {"id": id, "rule": rule, "tenant": "acme", **full, **more}


SEEN: dict[str, tuple[dict[str, Any], str, tuple[ModelRef, ...], bool]] = {
    "its team": ({"teams": ["vision"]}, "vision", (), True),
    "another team": ({"teams": ["vision"]}, "speech", (), False),
    "its model": ({"models": ["llama"]}, "vision", (LLAMA,), True),
    "its version": ({"models": ["llama@7"]}, "vision", (LLAMA,), True),
    "another version": ({"models": ["llama@8"]}, "vision", (LLAMA,), False),
    "no model": ({"models": ["llama"]}, "vision", (), False),
    "one of two models": ({"models": ["llama"]}, "vision", (LLAMA, GPT), False),
    "both models": ({"models": ["llama", "gpt@1"]}, "vision", (LLAMA, GPT), True),
    "its model in another team": ({"models": ["llama"], "teams": ["speech"]}, "vision", (LLAMA,), False),
    "its model and namespace": ({"models": ["llama"], "namespaces": ["vision"]}, "vision", (LLAMA,), True),
    "its model in another namespace": ({"models": ["llama"], "namespaces": ["vision"]}, "speech", (LLAMA,), False),
    "its namespace in another team": ({"namespaces": ["vision"], "teams": ["speech"]}, "vision", (), False),
    "another tenant": ({"models": ["llama"]}, "theirs", (LLAMA,), False),
    "its subject": ({"subjects": ["Deployment/chat"]}, "vision", (), True),
    "another subject": ({"subjects": ["Deployment/chats"]}, "vision", (), False),
}


@pytest.mark.parametrize("name", SEEN)
async def test_an_exemption_travels_where_it_is_meant(name: str) -> None:
    scope, namespace, models, expected = SEEN[name]
    found = await admission(lookup(exemptions=[exemption(**scope)]), namespace, *models)
    assert [one.id for one in found.exemptions] == (["E"] if expected else [])


async def test_an_exemption_for_all_and_for_one_subject_stands_once() -> None:
    found = await admission(lookup(exemptions=[exemption(subjects=["*", "Deployment/chat"])]))
    assert [one.id for one in found.exemptions] == ["E"]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = load_embedded()
    yield made
    made.close()


DEAD: dict[str, dict[str, Any]] = {
    "expired": {"expires": "2020-01-01T00:00:00Z"},
    "without an owner": {"owner": None},
    "without a reason": {"reason": None},
    "without a ticket": {"ticket": None},
    "without an end": {"expires": None},
}


@pytest.mark.parametrize("scope", [{}, {"teams": ["vision"]}, {"models": ["llama"]}, {"namespaces": ["vision"]}], ids=str)
@pytest.mark.parametrize("name", ["in force", *DEAD])
async def test_a_dead_exemption_counts_nowhere(engine: Engine, name: str, scope: dict[str, Any]) -> None:
    """Through the real rules, whatever narrows it; the same input is what webhook, check and report see."""
    base = next(case.input for case in cases("admission") if case.expect.get("allow"))
    rule = exemption(**scope, **DEAD.get(name, {}))
    rule = {key: value for key, value in rule.items() if value is not None}
    found = await admission(lookup(exemptions=[rule]), "vision", LLAMA)
    assert len(found.exemptions) == 1
    document = copy.deepcopy(base)
    document["config"]["exemptions"] = found.model_dump(mode="json", exclude_none=True)["exemptions"]
    document["request"]["gpu_shares"] = 60_480
    decision = engine.decide("admission", document)
    assert decision.allow is (name == "in force")
    assert [(v.rule, v.mode) for v in decision.warnings] == ([(RULE, "exempted")] if name == "in force" else [])
