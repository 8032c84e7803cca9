"""Models, data and approvals over both databases, decided by the shipped rules."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core.errors import BadInput, Conflict, EvidenceUnavailable, NotFound, Refused
from core.names import ModelRef
from core.principal import Principal
from lineage.approvals import Approvals
from lineage.cards import MANDATORY
from lineage.datasets import Datasets
from lineage.ledger import Ledger
from lineage.models import Models
from lineage.registry import Registry
from lineage.statements import approve, read_approval
from policies.engine import Engine, load_embedded
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryApprovers, MemoryCommitments, MemoryConfig, MemoryRecorder

D7, D8 = "sha256:" + "7" * 64, "sha256:" + "8" * 64
LLAMA, WEB = ModelRef("llama", "7"), ModelRef("web", "1")
AUTHOR = Principal("person:author", "user", "acme")
CARD = dict.fromkeys(MANDATORY, "said") | {"intended_purposes": ["search"]}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    loaded = load_embedded()
    yield loaded
    loaded.close()


@dataclass
class House:
    recorder: MemoryRecorder
    datasets: Datasets
    models: Models
    registry: Registry
    approvals: Approvals
    directory: MemoryApprovers

    def person(self, name: str, *, roles: frozenset[str] = frozenset({"approver"}), revoked: bool = False) -> Ed25519PrivateKey:
        """A registered person's new key; the same name again gets a further key."""
        key = Ed25519PrivateKey.generate()
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        key_id = read_approval(signed(key)).key_id
        principal = Principal(f"person:{name}", "user", "acme", roles=roles, key_id=key_id)
        self.directory.people[("acme", key_id)] = (principal, raw, revoked)
        return key

    async def ready(self) -> None:
        await self.datasets.register(WEB, by=AUTHOR, origin="crawl", basis="given", licence="CC-BY-4.0", purposes=("search",))
        await self.models.register(LLAMA, by=AUTHOR, datasets=[WEB])
        await self.models.set_manifest(LLAMA, D7, by=AUTHOR)
        assert await self.models.set_card(LLAMA, CARD, by=AUTHOR) == []


def signed(key: Ed25519PrivateKey, model: ModelRef = LLAMA, digest: str = D7, tenant: str = "acme") -> bytes:
    return approve(key, tenant=tenant, model=model, manifest_digest=digest, issued_unix=1)


@pytest.fixture
def house(database: Database, engine: Engine) -> House:
    recorder, directory, registry = MemoryRecorder(), MemoryApprovers(), Registry(database)
    ledger = Ledger(database, recorder=recorder, commitments=MemoryCommitments(), clock=FixedClock())
    approvals = Approvals(ledger, engine=engine, config=MemoryConfig(), directory=directory, registry=registry)
    return House(recorder, Datasets(ledger), Models(ledger), registry, approvals, directory)


async def test_two_people_approve_and_the_facts_say_so(house: House) -> None:
    await house.ready()
    for name in ("ann", "bob"):
        assert (await house.approvals.submit("acme", signed(house.person(name)))).allow
    fact = await house.registry.model("acme", LLAMA)
    assert fact is not None
    assert len({approval.person for approval in fact.approvals}) == 2
    assert fact.card is not None
    assert fact.card.complete
    assert fact.datasets[0].consent == "given"
    assert await house.registry.registered_digest(D7) == LLAMA
    assert await house.registry.model("globex", LLAMA) is None


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the author": ({"name": "author"}, "author"),
    "not an approver": ({"name": "eve", "roles": frozenset()}, "role approver"),
    "a revoked key": ({"name": "eve", "revoked": True}, "revoked"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_who_may_not_approve_is_refused_and_recorded(house: House, case: str) -> None:
    await house.ready()
    person, words = REFUSED[case]
    with pytest.raises(Refused, match=words) as refused:
        await house.approvals.submit("acme", signed(house.person(**person)))
    assert not refused.value.decision.allow
    assert house.recorder.entries[-1].kind == "approval"
    fact = await house.registry.model("acme", LLAMA)
    assert fact is not None
    assert fact.approvals == []


async def test_one_person_with_two_keys_is_one_person(house: House) -> None:
    await house.ready()
    await house.approvals.submit("acme", signed(house.person("ann")))
    with pytest.raises(Refused, match="already"):
        await house.approvals.submit("acme", signed(house.person("ann")))


async def test_an_unregistered_key_is_refused(house: House) -> None:
    await house.ready()
    with pytest.raises(Refused, match="not registered"):
        await house.approvals.submit("acme", signed(Ed25519PrivateKey.generate()))


async def test_an_approval_of_another_manifest_version_or_tenant_does_not_count(house: House) -> None:
    await house.ready()
    key = house.person("ann")
    with pytest.raises(Refused, match="the manifest of"):
        await house.approvals.submit("acme", signed(key, digest=D8))
    with pytest.raises(Refused, match="not registered"):
        await house.approvals.submit("acme", signed(key, ModelRef("llama", "8")))
    with pytest.raises(BadInput, match="another tenant"):
        await house.approvals.submit("acme", signed(key, tenant="globex"))


async def test_a_signature_by_another_key_is_refused(house: House) -> None:
    await house.ready()
    envelope = json.loads(signed(house.person("ann")))
    envelope["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
    with pytest.raises(Refused, match="not valid"):
        await house.approvals.submit("acme", json.dumps(envelope).encode())


async def test_replacing_the_model_after_approval_leaves_no_approval(house: House) -> None:
    await house.ready()
    for name in ("ann", "bob"):
        await house.approvals.submit("acme", signed(house.person(name)))
    await house.models.set_manifest(LLAMA, D8, by=AUTHOR)
    fact = await house.registry.model("acme", LLAMA)
    assert fact is not None
    assert [a for a in fact.approvals if a.manifest_digest == fact.manifest_digest] == []
    with pytest.raises(Conflict):
        await house.models.set_manifest(LLAMA, D7, by=AUTHOR)


async def test_withdrawing_consent_names_the_models_and_counts_at_once(house: House) -> None:
    await house.ready()
    assert await house.datasets.withdraw(WEB, by=AUTHOR, reason="asked to") == ("llama@7",)
    fact = await house.registry.model("acme", LLAMA)
    assert fact is not None
    assert fact.datasets[0].consent == "withdrawn"
    assert house.recorder.entries[-1].kind == "consent"
    with pytest.raises(Conflict):
        await house.datasets.withdraw(WEB, by=AUTHOR, reason="again")


async def test_no_record_no_action(house: House) -> None:
    await house.ready()
    house.recorder.broken = True
    with pytest.raises(EvidenceUnavailable):
        await house.datasets.withdraw(WEB, by=AUTHOR, reason="x")
    with pytest.raises(EvidenceUnavailable):
        await house.models.revoke(LLAMA, by=AUTHOR, reason="x")
    with pytest.raises(EvidenceUnavailable):
        await house.approvals.submit("acme", signed(house.person("ann")))
    fact = await house.registry.model("acme", LLAMA)
    assert fact is not None
    assert (fact.datasets[0].consent, fact.revoked, fact.approvals) == ("given", False, [])


async def test_registration_is_once_and_needs_its_datasets(house: House) -> None:
    with pytest.raises(NotFound):
        await house.models.register(LLAMA, by=AUTHOR, datasets=[WEB])
    await house.ready()
    with pytest.raises(Conflict):
        await house.models.register(LLAMA, by=AUTHOR, datasets=[])
    with pytest.raises(Conflict):
        await house.datasets.register(WEB, by=AUTHOR, origin="x", basis="given")
    assert await house.models.all("acme") == [LLAMA]
    assert [dataset.models for dataset in await house.datasets.all("acme")] == [("llama@7",)]


async def test_a_card_says_what_is_missing_and_takes_no_unknown_field(house: House) -> None:
    await house.ready()
    assert await house.models.set_card(LLAMA, {"title": " "}, by=AUTHOR) == [*MANDATORY, "intended_purposes"]
    with pytest.raises(BadInput, match="no field"):
        await house.models.set_card(LLAMA, {"titel": "x"}, by=AUTHOR)


BAD_ENVELOPES: dict[str, Any] = {
    "not JSON": b"{",
    "empty": b"{}",
    "two signatures": lambda e: e["signatures"].append(e["signatures"][0]),
    "no signature": lambda e: e["signatures"].clear(),
    "another payload type": lambda e: e.update(payloadType="text/plain"),
    "payload not base64": lambda e: e.update(payload="%"),
    "an extra field": lambda e: e.update(extra=1),
}


@pytest.mark.parametrize("case", BAD_ENVELOPES)
def test_bad_envelopes_are_refused(case: str) -> None:
    made = BAD_ENVELOPES[case]
    if callable(made):
        envelope = json.loads(signed(Ed25519PrivateKey.generate()))
        made(envelope)
        made = json.dumps(envelope).encode()
    with pytest.raises(BadInput):
        read_approval(made)


@pytest.mark.parametrize("position", range(0, 400, 37))
def test_any_changed_byte_of_the_payload_breaks_the_signature(position: int) -> None:
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    envelope = json.loads(signed(key))
    assert read_approval(signed(key)).signed_by(raw)
    payload = bytearray(base64.b64decode(envelope["payload"]))
    payload[position % len(payload)] ^= 1
    envelope["payload"] = base64.b64encode(bytes(payload)).decode()
    try:
        read = read_approval(json.dumps(envelope).encode())
    except BadInput:
        return
    assert not read.signed_by(raw)
