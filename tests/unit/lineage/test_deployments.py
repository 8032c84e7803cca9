"""Which workload runs which version: from admissions, exactly, and taken back with an admission that was not recorded."""

from __future__ import annotations

import pytest

from core.errors import Conflict
from core.names import ModelRef
from core.ports import Placed
from core.principal import Principal
from lineage.deployments import Deployments
from lineage.ledger import Ledger
from lineage.models import Models
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryRecorder

D7, D8 = "sha256:" + "7" * 64, "sha256:" + "8" * 64
A, B = ModelRef("llama", "7"), ModelRef("llama", "8")
AUTHOR = Principal("person:author", "user", "acme")


@pytest.fixture
async def models(database: Database) -> Models:
    ledger = Ledger(database, recorder=MemoryRecorder(), commitments=MemoryCommitments(), clock=FixedClock())
    made = Models(ledger)
    for ref, digest in ((A, D7), (B, D8)):
        await made.register(ref, by=AUTHOR, datasets=[])
        await made.set_manifest(ref, digest, by=AUTHOR)
    return made


@pytest.fixture
def deployments(database: Database, models: Models) -> Deployments:
    return Deployments(database, FixedClock())


async def place(
    deployments: Deployments, *refs: ModelRef, workload: str = "Deployment/chat", tenant: str = "acme", replaces: bool = True
) -> Placed:
    return await deployments.place(
        tenant, environment="vision", workload=workload, models=refs, actor="ref:ci", decision_id="d-1", replaces=replaces
    )


async def shown(deployments: Deployments) -> list[tuple[str, str]]:
    return [(item.workload, item.model) for item in await deployments.list("acme")]


async def test_placed_once_replaced_and_ended(deployments: Deployments) -> None:
    await place(deployments, A)
    again = await place(deployments, A)
    assert (again.started, again.ended) == ((), ()), "a retry changes nothing"
    await place(deployments, A, workload="Job/batch")
    assert await shown(deployments) == [("Deployment/chat", "llama@7"), ("Job/batch", "llama@7")]
    await place(deployments, A, B)
    assert sorted(await shown(deployments))[:2] == [("Deployment/chat", "llama@7"), ("Deployment/chat", "llama@8")]
    await place(deployments, B)
    assert await shown(deployments) == [("Job/batch", "llama@7"), ("Deployment/chat", "llama@8")]
    await place(deployments)
    assert await shown(deployments) == [("Job/batch", "llama@7")]
    whole = await deployments.list("acme", A, ended=True)
    assert [(item.workload, item.ended_unix is None, item.manifest_digest) for item in whole] == [
        ("Deployment/chat", False, D7), ("Job/batch", True, D7)
    ]  # fmt: skip


async def test_taken_back_it_is_as_before(deployments: Deployments) -> None:
    await place(deployments, A)
    before = await deployments.list("acme")
    placed = await place(deployments, B)
    assert await shown(deployments) == [("Deployment/chat", "llama@8")]
    await deployments.take_back(placed)
    assert await deployments.list("acme") == before
    await deployments.take_back(Placed((), ()))


async def test_a_new_seal_of_the_same_version_is_another_deployment(deployments: Deployments, models: Models) -> None:
    await place(deployments, A)
    await models.set_manifest(A, "sha256:" + "9" * 64, by=AUTHOR)
    await place(deployments, A)
    assert [item.manifest_digest[-1] for item in await deployments.list("acme", A, ended=True)] == ["7", "9"]
    assert len(await deployments.list("acme", A)) == 1


async def test_only_registered_versions_of_the_tenant(deployments: Deployments) -> None:
    await place(deployments, ModelRef("unknown", "1"))
    await place(deployments, A, tenant="other")
    assert await deployments.list("acme") == await deployments.list("other") == []
    await place(deployments, A)
    await place(deployments, tenant="other")
    assert len(await deployments.list("acme")) == 1, "another tenant ends nothing of ours"


async def test_two_at_once_keep_one(deployments: Deployments) -> None:
    import asyncio

    results = await asyncio.gather(*(place(deployments, A) for _ in range(8)), return_exceptions=True)
    assert all(isinstance(result, (Placed, Conflict)) for result in results), results
    assert await shown(deployments) == [("Deployment/chat", "llama@7")]


async def test_what_may_be_refused_after_us_hides_nothing(deployments: Deployments, models: Models) -> None:
    """A CREATE of a name that is taken."""
    await place(deployments, A)
    placed = await place(deployments, B, replaces=False)
    assert (len(placed.started), placed.ended) == (1, ())
    assert sorted(await shown(deployments)) == [("Deployment/chat", "llama@7"), ("Deployment/chat", "llama@8")]
    await place(deployments, replaces=False)
    assert len(await shown(deployments)) == 2, "one without a model hides nothing either"
    await models.set_manifest(A, "sha256:" + "9" * 64, by=AUTHOR)
    await place(deployments, A, replaces=False)
    assert [item.manifest_digest[-1] for item in await deployments.list("acme", A)] == ["9"]


async def test_taking_back_reopens_nothing_that_a_later_request_settled(deployments: Deployments) -> None:
    await place(deployments, A)
    first = await place(deployments, B)
    await place(deployments, A)
    await deployments.take_back(first)
    assert await shown(deployments) == [("Deployment/chat", "llama@7")], "once, and no error"
    second = await place(deployments, B)
    await place(deployments)
    await deployments.take_back(second)
    assert await shown(deployments) == [], "deleted meanwhile"


async def test_taking_back_a_new_seal_reopens_the_old_one(deployments: Deployments, models: Models) -> None:
    await place(deployments, A)
    await models.set_manifest(A, "sha256:" + "9" * 64, by=AUTHOR)
    placed = await place(deployments, A)
    await deployments.take_back(placed)
    assert [item.manifest_digest for item in await deployments.list("acme", A, ended=True)] == [D7]


async def test_two_long_names_stay_two(deployments: Deployments) -> None:
    """Kubernetes allows 253 characters, the kind comes before them."""
    long = "Deployment/" + "x" * 252
    await place(deployments, A, workload=long + "a")
    await place(deployments, B, workload=long + "b")
    assert sorted(model for _, model in await shown(deployments)) == ["llama@7", "llama@8"]
    await place(deployments, workload=long + "a")
    assert [model for _, model in await shown(deployments)] == ["llama@8"]


async def test_what_has_no_model_takes_no_write_lock(
    deployments: Deployments, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every DELETE of every object comes by here."""
    await place(deployments, A)
    opened: list[bool] = []
    whole = Database.session

    def session(self: Database, *, reading: bool = False) -> object:
        opened.append(reading)
        return whole(self, reading=reading)

    monkeypatch.setattr(Database, "session", session)
    await place(deployments, workload="Pod/other")
    assert opened == [True]
