"""A freeze at every door: three processes' worth of stores over one database, the real rules, one engine that remembers decisions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from admission.ledger import QuotaLedger
from admission.service import AdmissionService
from core.inputs import ApprovalFact, CardFact, DatasetFact, ModelFact
from core.names import ModelRef
from core.principal import Principal
from gateway.governor import Governor
from gateway.limits import RequestLimiter
from lineage.deployments import Deployments
from policies.engine import Engine, load_embedded
from policies.freezes import Freezes, Target
from policies.store import ConfigStore
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryModels, MemoryRecorder
from tests.unit.admission import reviews
from weights.keys import InsecureLocalKeys
from weights.release import KeyRelease

LLAMA = ModelRef("llama-3", "7")
DIGEST = "sha256:" + "7" * 64
CALLER = Principal("key:K1", "caller", "acme", team="vision")
ADMIN = Principal("person:ada", "user", "acme", roles=frozenset({"admin"}))
CONFIG = """
tenants:
  acme:
    images: [{registry: registry.acme.example, repository: ml}]
    teams: {vision: {namespaces: [team-a], gpu_quota: 4}}
grants:
  - {id: call, tenant: acme, domain: gateway, model: llama-3, teams: [vision]}
  - {id: keys, tenant: acme, domain: weights, model: llama-3, teams: [vision]}
"""


def fit(**change: Any) -> ModelFact:
    approvals = [ApprovalFact(person=f"ref:{who}", manifest_digest=DIGEST, approved_at_unix=1) for who in "ab"]
    fact = ModelFact(
        name="llama-3",
        version="7",
        tenant="acme",
        author="ref:author",
        manifest_digest=DIGEST,
        card=CardFact(complete=True),
        approvals=approvals,
        datasets=[DatasetFact(name="web", version="1", consent="given")],
    )
    return fact.model_copy(update=change)


class Doors:
    """Gateway, webhook and key release, each with a store of its own; `freezes` works through yet another one."""

    def __init__(self, database: Database, folder: Path, engine: Engine) -> None:
        (folder / "config.yaml").write_text(CONFIG)
        self.database, self.folder, self.engine = database, folder, engine
        self.recorder, self.clock = MemoryRecorder(), FixedClock()
        self.models = MemoryModels({("acme", str(LLAMA)): fit()})
        common: dict[str, Any] = {
            "engine": engine, "models": self.models, "recorder": self.recorder, "commitments": MemoryCommitments(),
            "clock": self.clock,
        }  # fmt: skip
        self.gateway = Governor(**common, config=self.store(), limiter=RequestLimiter())
        self.webhook = AdmissionService(
            **common,
            config=self.store(),
            ledger=QuotaLedger(database, self.clock),
            deployments=Deployments(database, self.clock),
            tenant="acme",
        )
        self.keys = InsecureLocalKeys(folder / "keys")
        self.keys.generate()
        common["registry"] = common.pop("models")
        self.release = KeyRelease(**common, config=self.store(), keys=self.keys)
        self.freezes = Freezes(self.store(), commitments=MemoryCommitments(), clock=self.clock)

    def store(self) -> ConfigStore:
        return ConfigStore(
            self.database,
            commitments=MemoryCommitments(),
            recorder=self.recorder,
            files=[self.folder / "config.yaml"],
            clock=self.clock,
            home="acme",
        )

    async def calls(self) -> tuple[bool, list[str]]:
        decision, _ = await self.gateway.decide(CALLER, "/v1/chat/completions", LLAMA, None)
        return decision.allow, [violation.rule for violation in decision.violations]

    async def admits(self) -> tuple[bool, str]:
        """A dry run, so that asking again finds the same ledger and only the decision counts."""
        template = {"portcullis.dev/model": str(LLAMA), "portcullis.dev/weights": f"sealed://store/llama@{DIGEST}"}
        found = reviews.deployment(1)
        found["spec"]["template"]["metadata"] = {"annotations": template}
        asked = reviews.create(found, uid="u", dry_run=True, user="jane")
        answer = (await self.webhook.review(asked))["response"]
        return answer["allowed"], answer.get("status", {}).get("message", "")

    async def releases(self) -> tuple[bool, list[str]]:
        wrapped = await self.keys.wrap(os.urandom(32), DIGEST)
        released = await self.release.release(CALLER, LLAMA, DIGEST, [wrapped])
        assert (released.key is None) is (not released.decision.allow)
        return released.decision.allow, [violation.rule for violation in released.decision.violations]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = load_embedded()
    yield made
    made.close()


@pytest.fixture
def doors(database: Database, tmp_path: Path, engine: Engine) -> Doors:
    return Doors(database, tmp_path, engine)


TARGETS = ["model:llama-3@7", "model:llama-3", "tenant:acme"]


@pytest.mark.parametrize("target", TARGETS)
async def test_a_freeze_is_a_denial_at_every_door_within_a_second(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    now = [1000.0]
    monkeypatch.setattr("policies.store.time.monotonic", lambda: now[0])
    for _ in range(2):  # the second answers come from memory
        assert await doors.calls() == (True, [])
        assert (await doors.admits())[0]
        assert await doors.releases() == (True, [])
    hits = doors.engine.memory.hits
    assert hits > 0
    await doors.freezes.freeze(Target.parse(target), tenant="acme", author=ADMIN, reason="incident 42")
    now[0] += 0.99
    assert await doors.calls() == (False, ["gateway/frozen"])
    allowed, message = await doors.admits()
    assert not allowed
    assert "admission/frozen" in message
    assert "unfreeze" in message
    assert await doors.releases() == (False, ["weights/frozen"])
    assert doors.engine.memory.hits == hits, "no remembered decision was used"
    await doors.freezes.unfreeze(Target.parse(target), tenant="acme", author=ADMIN, reason="closed")
    now[0] += 0.99
    assert [(await doors.calls())[0], (await doors.admits())[0], (await doors.releases())[0]] == [True, True, True]


async def test_a_frozen_caller_is_denied_wherever_it_asks(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("policies.store.time.monotonic", lambda: now[0])
    assert (await doors.calls())[0]
    for who in ("key:K1", "jane"):
        await doors.freezes.freeze(Target("caller", who), tenant="acme", author=ADMIN, reason="stolen")
    now[0] += 0.99
    assert await doors.calls() == (False, ["gateway/frozen"])
    assert await doors.releases() == (False, ["weights/frozen"])
    assert not (await doors.admits())[0]
    assert "jane" not in repr(doors.recorder.inputs)


CHANGES: dict[str, dict[str, Any]] = {
    "consent withdrawn": {"datasets": [DatasetFact(name="web", version="1", consent="withdrawn")]},
    "revoked": {"revoked": True},
    "an approval gone": {"approvals": fit().approvals[:1]},
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_changed_fact_is_never_answered_from_memory(doors: Doors, name: str) -> None:
    assert [(await doors.calls())[0], (await doors.admits())[0], (await doors.releases())[0]] == [True, True, True]
    hits = doors.engine.memory.hits
    doors.models.models["acme", str(LLAMA)] = fit(**CHANGES[name])
    assert [(await doors.calls())[0], (await doors.admits())[0], (await doors.releases())[0]] == [False, False, False]
    assert doors.engine.memory.hits == hits
