"""Who gets the key of sealed weights: by the real rules, on record before anything leaves."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import EvidenceUnavailable, Forbidden, NotFound, SealBroken, Unavailable
from core.inputs import ApprovalFact, CardFact, DatasetFact, Grant, ModelFact, WeightsConfig
from core.names import ModelRef
from core.principal import Principal
from core.record import Entry
from policies.engine import load_embedded
from tests.conftest import ROOT
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryRecorder
from weights import release
from weights.keys import InsecureLocalKeys, WrappedKey
from weights.release import KeyRelease

REF = ModelRef("llama-3", "7")
DIGEST = "sha256:" + "7" * 64
SERVING = Principal("key:serving", "caller", "acme", team="vision", roles=frozenset({"service"}))
KEY = os.urandom(32)


def model(**change: Any) -> ModelFact:
    approvals = [ApprovalFact(person=f"ref:{who}", manifest_digest=DIGEST, approved_at_unix=1) for who in "ab"]
    data = DatasetFact(name="web", version="1", licence=None, consent="given", purposes=[])
    fact = ModelFact(
        name="llama-3", version="7", tenant="acme", author="ref:author", manifest_digest=DIGEST,
        card=CardFact(complete=True, missing=[], purposes=[]), approvals=approvals, datasets=[data], revoked=False,
    )  # fmt: skip
    return fact.model_copy(update=change)


@dataclass
class World:
    """What the ports answer."""

    model_fact: ModelFact | None = field(default_factory=model)
    grants: list[Grant] = field(default_factory=lambda: [Grant(id="g", model="llama-3", teams=["vision"])])
    broken: bool = False

    async def model(self, tenant: str, ref: ModelRef) -> ModelFact | None:
        if self.broken:
            raise Unavailable("the database does not answer")
        return self.model_fact

    async def weights(self, principal: Principal, ref: ModelRef) -> WeightsConfig:
        return WeightsConfig(revision="c1", grants=self.grants)


@pytest.fixture(scope="module")
def engine() -> Any:
    return load_embedded(ROOT / "policies" / "rego", [])


@pytest.fixture
def keys(tmp_path: Path) -> InsecureLocalKeys:
    made = InsecureLocalKeys(tmp_path)
    made.generate()
    return made


@dataclass
class Rig:
    world: World
    recorder: MemoryRecorder
    release: KeyRelease
    wrapped: WrappedKey


@pytest.fixture
async def rig(engine: Any, keys: InsecureLocalKeys) -> Rig:
    world, recorder = World(), MemoryRecorder()
    made = KeyRelease(
        engine=engine, config=world, registry=world, recorder=recorder,  # type: ignore[arg-type]  # only what is asked for
        commitments=MemoryCommitments(), keys=keys, clock=FixedClock(),
    )  # fmt: skip
    return Rig(world, recorder, made, await keys.wrap(KEY, DIGEST))


async def test_the_key_with_a_grant_and_on_record(rig: Rig) -> None:
    released = await rig.release.release(SERVING, REF, DIGEST, [rig.wrapped])
    assert released.key == KEY
    assert KEY.hex() not in repr(released)
    (entry,) = rig.recorder.entries
    assert (entry.kind, entry.subject, entry.digests["manifest"]) == ("key_release", "llama-3@7", DIGEST)
    assert "serving" not in str(entry)
    assert entry.details["keks"] == [f"local/{rig.wrapped.kek}"]


DENIALS: dict[str, tuple[dict[str, Any], str]] = {
    "no grant": ({"grants": []}, "grant"),
    "a grant for another team": ({"grants": [Grant(id="g", model="llama-3", teams=["search"])]}, "grant"),
    "a grant for another version": ({"grants": [Grant(id="g", model="llama-3", version="8", teams=["vision"])]}, "grant"),
    "not registered": ({"model_fact": None}, "not registered"),
    "another manifest registered": ({"model_fact": model(manifest_digest="sha256:" + "8" * 64)}, "not the registered one"),
    "one approval": ({"model_fact": model(approvals=model().approvals[:1])}, "approved by 1 people"),
    "an incomplete card": ({"model_fact": model(card=CardFact(complete=False, missing=["title"], purposes=[]))}, "incomplete"),
    "consent withdrawn": (
        {"model_fact": model(datasets=[model().datasets[0].model_copy(update={"consent": "withdrawn"})])},
        "consent is withdrawn",
    ),
    "revoked": ({"model_fact": model(revoked=True)}, "revoked"),
    "another tenant's": ({"model_fact": model(tenant="other")}, "another tenant"),
}


@pytest.mark.parametrize("name", DENIALS)
async def test_no_key_and_the_denial_on_record(rig: Rig, name: str) -> None:
    change, why = DENIALS[name]
    vars(rig.world).update(vars(replace(rig.world, **change)))
    released = await rig.release.release(SERVING, REF, DIGEST, [rig.wrapped])
    assert released.key is None
    assert why in released.decision.reason
    assert rig.recorder.entries[0].decision is not None
    assert rig.recorder.entries[0].decision["allow"] is False


async def test_row_21_without_a_record_no_key(rig: Rig, keys: InsecureLocalKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.recorder.broken = True
    unwrapped: list[WrappedKey] = []

    async def watched(wrapped: WrappedKey, digest: str) -> bytes:
        unwrapped.append(wrapped)
        return KEY

    monkeypatch.setattr(keys, "unwrap", watched)
    with pytest.raises(EvidenceUnavailable):
        await rig.release.release(SERVING, REF, DIGEST, [rig.wrapped])
    assert unwrapped == []


async def test_row_21_facts_that_cannot_be_had(rig: Rig) -> None:
    rig.world.broken = True
    with pytest.raises(Unavailable):
        await rig.release.release(SERVING, REF, DIGEST, [rig.wrapped])
    (entry,) = rig.recorder.entries
    assert (entry.kind, entry.subject, entry.decision) == ("access", "llama-3@7", None)
    assert entry.details == {
        "action": "key_release", "outcome": "not_released", "code": "unavailable", "step": "decide",
    }  # fmt: skip
    assert entry.actor == await MemoryCommitments().ref("acme", "key:serving")


async def test_row_21_facts_that_come_too_late(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(tenant: str, ref: ModelRef) -> ModelFact:
        return await asyncio.Future()

    monkeypatch.setattr(release, "FACTS_SECONDS", 0.01)
    rig.world.model = never  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="in time"):
        await rig.release.release(SERVING, REF, DIGEST, [rig.wrapped])
    assert [entry.details["step"] for entry in rig.recorder.entries] == ["decide"]


async def test_row_21_a_key_provider_that_does_not_answer(
    rig: Rig, keys: InsecureLocalKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision stands as allowed; that no key left is on record beside it, linked by the decision's id."""

    async def never(wrapped: WrappedKey, digest: str) -> bytes:
        return await asyncio.Future()

    monkeypatch.setattr(release, "KEYS_SECONDS", 0.01)
    monkeypatch.setattr(keys, "unwrap", never)
    with pytest.raises(Unavailable, match="provider"):
        await rig.release.release(SERVING, REF, DIGEST, [rig.wrapped])
    decided, failed = rig.recorder.entries
    assert decided.decision is not None
    assert failed.details["decision_id"] == decided.decision["decision_id"]
    assert (failed.kind, failed.details["code"], failed.digests) == ("access", "unavailable", {"manifest": DIGEST})


async def test_row_21_an_error_that_is_not_ours_is_on_record_without_its_text(
    rig: Rig, keys: InsecureLocalKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(wrapped: WrappedKey, digest: str) -> bytes:
        raise RuntimeError("the driver says: pin 1234")

    monkeypatch.setattr(keys, "unwrap", fails)
    with pytest.raises(RuntimeError):
        await rig.release.release(SERVING, REF, DIGEST, [rig.wrapped])
    decided, failed = rig.recorder.entries
    assert decided.decision is not None
    assert failed.details == {
        "action": "key_release", "outcome": "not_released", "code": "internal", "step": "unwrap",
        "decision_id": decided.decision["decision_id"],
    }  # fmt: skip


@pytest.mark.parametrize("step", ["unwrap", "record"])
async def test_row_21_a_caller_who_goes_away_is_on_record(
    rig: Rig, keys: InsecureLocalKeys, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Cancelled after the decision, and again while that is written: the record comes all the same."""
    reached, writing, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    event = rig.recorder.event

    async def never(wrapped: WrappedKey, digest: str) -> bytes:
        reached.set()
        return await asyncio.Future()

    async def slowly(entry: Entry) -> str:
        if entry.kind == "access":
            writing.set()
            await go_on.wait()
        done = await event(entry)
        if step == "record" and entry.kind == "key_release":
            reached.set()
            await asyncio.Future()
        return done

    monkeypatch.setattr(keys, "unwrap", never)
    monkeypatch.setattr(rig.recorder, "event", slowly)
    asking = asyncio.create_task(rig.release.release(SERVING, REF, DIGEST, [rig.wrapped]))
    await reached.wait()
    asking.cancel()
    await writing.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go_on.set()
    async with asyncio.timeout(20):
        while len(rig.recorder.entries) < 2:
            await asyncio.sleep(0)
    decided, failed = rig.recorder.entries
    assert decided.decision is not None
    assert (failed.details["code"], failed.details["step"]) == ("cancelled", step)
    assert failed.details["decision_id"] == decided.decision["decision_id"]


async def test_row_21_who_asked_cannot_be_found_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(self: MemoryCommitments, tenant: str, person: str) -> str:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(MemoryCommitments, "ref", down)
    with pytest.raises(Unavailable):
        await rig.release.release(SERVING, REF, DIGEST, [rig.wrapped])
    assert [entry.actor for entry in rig.recorder.entries] == ["unresolved"]


async def test_the_key_of_another_folder_is_not_released_under_an_approved_digest(rig: Rig, keys: InsecureLocalKeys) -> None:
    """The wrapped key is bound to its manifest: naming an approved digest beside somebody else's key gives nothing."""
    foreign = await keys.wrap(os.urandom(32), "sha256:" + "8" * 64)
    with pytest.raises(SealBroken):
        await rig.release.release(SERVING, REF, DIGEST, [foreign])
    assert [(entry.kind, entry.details.get("code")) for entry in rig.recorder.entries] == [
        ("key_release", None), ("access", "seal_broken"),
    ]  # fmt: skip
    with pytest.raises(SealBroken, match="no wrapped key"):
        await rig.release.release(SERVING, REF, DIGEST, [])


async def test_row_8_keys_of_other_providers_are_passed_over(rig: Rig) -> None:
    foreign = WrappedKey("aws-kms", "arn:x", b"x" * 60)
    assert (await rig.release.release(SERVING, REF, DIGEST, [foreign, rig.wrapped])).key == KEY
    with pytest.raises(Forbidden, match="aws-kms"):
        await rig.release.release(SERVING, REF, DIGEST, [foreign])
    gone = WrappedKey("local", "local-" + "0" * 36, b"x" * 60)
    assert (await rig.release.release(SERVING, REF, DIGEST, [gone, rig.wrapped])).key == KEY, "one of two is here"
    with pytest.raises(NotFound):
        await rig.release.release(SERVING, REF, DIGEST, [gone])
