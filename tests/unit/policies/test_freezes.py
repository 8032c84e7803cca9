"""The emergency stop: who may use it, what is on record, and that it counts at every door within a second whatever was remembered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from core.canonical import sha256
from core.decision import STOPS
from core.errors import BadInput, ConfigError, Conflict, EvidenceUnavailable, Forbidden, NotFound
from core.inputs import AdmissionConfig, Frozen
from core.names import ModelRef
from core.principal import Principal
from policies.freezes import Freezes, Target
from policies.store import ConfigStore
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryRecorder

ADMIN = Principal("person:ada", "user", "home", roles=frozenset({"admin"}))
OPERATOR = Principal("person:olga", "user", "home", roles=frozenset({"operator"}))
THEIRS = Principal("person:ann", "user", "acme", roles=frozenset({"admin"}))
CALLER = Principal("key:K1", "caller", "acme", team="vision")
LLAMA = ModelRef("llama-3.1", "7")
FILE = """
tenants:
  acme: {teams: {vision: {namespaces: [vision]}}}
  other: {teams: {vision: {namespaces: [theirs]}}}
"""


class World:
    """Two processes over one database: `one` makes the changes, `two` answers a door's questions."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.recorder, self.clock, self.folder = MemoryRecorder(), FixedClock(), folder
        (folder / "config.yaml").write_text(FILE)
        self.database = database
        self.one, self.two = self.store(max_age_seconds=0), self.store(max_age_seconds=0)
        self.freezes = Freezes(self.one, commitments=MemoryCommitments(), clock=self.clock)

    def store(self, **more: Any) -> ConfigStore:
        return ConfigStore(
            self.database,
            commitments=MemoryCommitments(),
            recorder=self.recorder,
            files=[self.folder / "config.yaml"],
            clock=self.clock,
            home="home",
            **more,
        )

    async def freeze(
        self, text: str, *, tenant: str = "acme", author: Principal = OPERATOR, reason: str = "incident 42"
    ) -> bool:
        return (await self.freezes.freeze(Target.parse(text), tenant=tenant, author=author, reason=reason)).changed

    async def unfreeze(self, text: str, *, tenant: str = "acme", author: Principal = ADMIN, reason: str = "closed") -> bool:
        return (await self.freezes.unfreeze(Target.parse(text), tenant=tenant, author=author, reason=reason)).changed

    async def admission(self, namespace: str = "vision", *models: ModelRef, caller: str = "jane") -> AdmissionConfig:
        return await self.two.admission(namespace, subject="Deployment/chat", caller=caller, models=models)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


SEEN: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "a version": ("llama-3.1@7", [("model", "llama-3.1@7")]),
    "a model": ("model:llama-3.1", [("model", "llama-3.1")]),
    "another version": ("llama-3.1@8", []),
    "another model": ("model:llama", []),
    "the tenant": ("tenant:acme", [("tenant", "acme")]),
    "the caller": ("caller:key:K1", [("caller", "ref")]),
    "another caller": ("caller:key:K10", []),
}


@pytest.mark.parametrize("name", SEEN)
async def test_every_door_sees_what_concerns_its_request_and_nothing_else(world: World, name: str) -> None:
    text, expected = SEEN[name]
    await world.freeze(text)
    ref = await MemoryCommitments().ref("acme", CALLER.id)
    wanted = [
        Frozen(kind=kind, subject=ref if kind == "caller" else subject, since_unix=world.clock.now)
        for kind, subject in expected
    ]  # type: ignore[arg-type]
    assert (await world.two.gateway(CALLER, LLAMA)).frozen == wanted
    assert (await world.two.weights(CALLER, LLAMA)).frozen == wanted
    assert (await world.admission("vision", LLAMA, caller=CALLER.id)).frozen == wanted


async def test_a_freeze_ends_at_its_tenant(world: World) -> None:
    for text in ("llama-3.1@7", "caller:key:K1", "tenant:acme"):
        await world.freeze(text)
    other = Principal(CALLER.id, "caller", "other", team="vision")
    assert (await world.two.gateway(other, LLAMA)).frozen == []
    assert (await world.admission("theirs", LLAMA, caller=CALLER.id)).frozen == []
    assert (await world.admission("kube-system", LLAMA, caller=CALLER.id)).frozen == []


async def test_a_frozen_user_is_stopped_in_namespaces_of_nobody_too(world: World) -> None:
    await world.freeze("caller:jane", tenant="home")
    assert [stop.kind for stop in (await world.admission("kube-system")).frozen] == ["caller"]


async def test_of_a_workloads_models_each_counts(world: World) -> None:
    await world.freeze("second@1")
    found = await world.admission("vision", LLAMA, ModelRef("second", "1"))
    assert [stop.subject for stop in found.frozen] == ["second@1"]


async def test_unfreezing_lifts_exactly_that_freeze(world: World) -> None:
    await world.freeze("llama-3.1@7")
    await world.freeze("model:llama-3.1")
    await world.unfreeze("llama-3.1@7")
    assert [stop.subject for stop in (await world.two.gateway(CALLER, LLAMA)).frozen] == ["llama-3.1"]
    await world.unfreeze("model:llama-3.1")
    assert (await world.two.gateway(CALLER, LLAMA)).frozen == []
    assert await world.freezes.list() == []


async def test_what_is_on_record_names_no_person_and_no_reason(world: World) -> None:
    await world.freeze("caller:person:jane", reason="jane leaked it")
    await world.unfreeze("caller:person:jane", reason="it was somebody else")
    ref, actor = await MemoryCommitments().ref("acme", "person:jane"), await MemoryCommitments().ref("home", "person:olga")
    first, second = world.recorder.entries
    assert (first.kind, first.actor, first.subject) == ("freeze", actor, ref)
    assert first.digests["reason"] == sha256(b"jane leaked it")
    assert first.details == {"action": "freeze", "target": "caller", "of": "acme", "version": 1}
    assert (second.kind, second.details["action"]) == ("freeze", "unfreeze")
    assert "jane" not in repr(world.recorder.entries)
    assert all("jane" not in version.path for version in await world.one.history())


async def test_the_record_of_a_model_names_it_as_every_other_record_does(world: World) -> None:
    await world.freeze("llama-3.1@7")
    assert world.recorder.entries[0].subject == "llama-3.1@7"


async def test_without_a_record_nothing_is_frozen(world: World) -> None:
    world.recorder.broken = True
    with pytest.raises(EvidenceUnavailable):
        await world.freeze("llama-3.1@7")
    assert (await world.two.gateway(CALLER, LLAMA)).frozen == []


async def test_freezing_twice_changes_and_records_nothing(world: World) -> None:
    assert await world.freeze("llama-3.1@7")
    assert not await world.freeze("llama-3.1@7", reason="again")
    assert len(world.recorder.entries) == 1


Act = Callable[[World], Awaitable[Any]]
REFUSED: dict[str, tuple[Act, type[Exception]]] = {
    "an auditor freezes": (
        lambda world: world.freeze("a@1", author=Principal("p", "user", "home", roles=frozenset({"auditor"}))),
        Forbidden,
    ),
    "an operator unfreezes": (lambda world: world.unfreeze("frozen@1", author=OPERATOR), Forbidden),
    "another tenant's": (lambda world: world.freeze("a@1", tenant="other", author=THEIRS), Forbidden),
    "another tenant itself": (lambda world: world.freeze("tenant:other", tenant="other", author=THEIRS), Forbidden),
    "another tenant's unfreeze": (lambda world: world.unfreeze("frozen@1", author=THEIRS, tenant="home"), Forbidden),
    "a tenant within another": (lambda world: world.freeze("tenant:other"), BadInput),
    "a tenant that is not there": (lambda world: world.freeze("tenant:acne", tenant="acne"), NotFound),
    "no reason": (lambda world: world.freeze("a@1", reason=" "), BadInput),
    "what is not frozen": (lambda world: world.unfreeze("a@1"), NotFound),
    "by config set": (
        lambda world: world.one.set("freezes", [], author=ADMIN, reason="x"),
        BadInput,
    ),
    "by config unset": (
        lambda world: world.one.unset('freezes."acme/model:frozen@1"', author=ADMIN, reason="x"),
        BadInput,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_who_may_not_or_names_nothing_is_refused(world: World, name: str) -> None:
    act, error = REFUSED[name]
    await world.freeze("frozen@1")
    with pytest.raises(error):
        await act(world)
    assert [rule.target for rule in await world.freezes.list()] == ["model:frozen@1"]


async def test_a_tenants_own_admin_freezes_and_lifts_in_it(world: World) -> None:
    assert await world.freeze("llama-3.1@7", author=THEIRS)
    assert await world.unfreeze("llama-3.1@7", author=THEIRS)


async def test_a_freeze_in_a_file_counts_and_is_lifted_there(world: World) -> None:
    stop = "freezes: [{tenant: acme, target: 'model:llama-3.1', since: 2026-01-01T00:00:00Z, reason: from git}]"
    (world.folder / "config.yaml").write_text(FILE + stop)
    assert [found.subject for found in (await world.two.gateway(CALLER, LLAMA)).frozen] == ["llama-3.1"]
    with pytest.raises(Conflict):
        await world.unfreeze("model:llama-3.1")


@pytest.mark.parametrize("rule", sorted(STOPS))
@pytest.mark.parametrize(
    "section", ["modes: [{{rule: {rule}, mode: warn}}]", "exemptions: [{{id: E, rule: {rule}, tenant: acme, subjects: ['*']}}]"]
)
async def test_no_mode_and_no_exemption_of_a_freeze_can_be_configured(world: World, rule: str, section: str) -> None:
    (world.folder / "config.yaml").write_text(FILE + section.format(rule=rule))
    with pytest.raises(ConfigError, match="no mode and no exemption"):
        await world.two.refresh()


BAD_TARGETS = [
    "", "llama", "model:", "model:a@", "model:@1", "model:a b", "caller:", "caller:a b", 'caller:a"b', "tenant:", "tenant:a/b",
    "team:vision", "model:a@1@2", "caller:" + "x" * 161,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_TARGETS)
def test_what_cannot_be_frozen_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        Target.parse(text)


async def test_another_process_sees_it_within_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the age that doors use, and the clock in hand: an answer given a second later knows it."""
    now = [1000.0]
    monkeypatch.setattr("policies.store.time.monotonic", lambda: now[0])
    door = world.store()
    assert (await door.gateway(CALLER, LLAMA)).frozen == []
    await world.freeze("llama-3.1@7")
    now[0] += 0.99
    assert [stop.subject for stop in (await door.gateway(CALLER, LLAMA)).frozen] == ["llama-3.1@7"]
