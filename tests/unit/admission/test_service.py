from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import func, select

from admission.ledger import QuotaLedger
from admission.tables import ChargeRow, OwnerRow, RequestRow
from core.errors import BadInput, EvidenceUnavailable, TooLarge, Unavailable
from core.inputs import ModelFact
from core.names import ModelRef
from core.principal import Principal
from lineage.deployments import Deployments
from lineage.ledger import Ledger
from lineage.models import Models
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryModels, MemoryRecorder
from tests.unit.admission.conftest import ServiceMaker
from tests.unit.admission.reviews import GPU, QuotaEngine, config, create, deployment, pod, remove, templated, update

CONTROLLER = "system:serviceaccount:kube-system:deployment-controller"


async def held(ledger: QuotaLedger) -> int:
    """GPUs on the account, which must be the sum of the objects' charges."""
    accounts = await ledger.accounts("acme")
    assert sum(account.used_shares for account in accounts) == sum(h.shares for _, h in await ledger.holdings("acme"))
    return sum(account.used_shares for account in accounts) // GPU


def allowed(answer: dict[str, Any]) -> bool:
    assert answer["apiVersion"] == "admission.k8s.io/v1"
    return bool(answer["response"]["allowed"])


async def test_a_workload_is_charged_grows_shrinks_and_gives_back(make: ServiceMaker, ledger: QuotaLedger) -> None:
    door = make()
    assert allowed(await door.review(create(deployment(1, 2))))
    assert await held(ledger) == 2
    assert allowed(await door.review(update(deployment(2, 2), deployment(1, 2))))
    assert await held(ledger) == 4
    assert not allowed(await door.review(update(deployment(2, 4), deployment(2, 2))))
    assert await held(ledger) == 4
    assert allowed(await door.review(update(deployment(1, 1), deployment(2, 2))))
    assert await held(ledger) == 1
    assert allowed(await door.review(remove(deployment(1, 1))))
    assert await held(ledger) == 0
    assert await ledger.holdings("acme") == []


async def test_a_denial_says_rule_and_decision(make: ServiceMaker, recorder: MemoryRecorder) -> None:
    answer = (await make().review(create(deployment(8), uid="r-1")))["response"]
    assert answer["uid"] == "r-1"
    assert answer["status"]["code"] == 403
    assert "admission/gpu-quota" in answer["status"]["message"]
    (entry,) = recorder.entries
    assert entry.decision is not None
    assert entry.decision["decision_id"] == answer["auditAnnotations"]["decision-id"]
    assert entry.subject == "team-a/Deployment/chat"
    assert entry.tenant == "acme"


async def test_what_is_parked_is_charged_when_it_grows(make: ServiceMaker, ledger: QuotaLedger) -> None:
    """failure-cases/admission.md 13 and 21."""
    door = make()
    assert allowed(await door.review(create(deployment(1, 0))))
    assert await held(ledger) == 0
    assert not allowed(await door.review(update(deployment(1, 5), deployment(1, 0))))
    assert allowed(await door.review(update(deployment(1, 4), deployment(1, 0))))
    assert await held(ledger) == 4


async def test_the_chain_from_deployment_to_pod_is_charged_once(make: ServiceMaker, ledger: QuotaLedger) -> None:
    door = make()
    await door.review(create(deployment(1, 4, uid="d-1")))
    owner = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat", "uid": "d-1", "controller": True}]
    replicas = templated("apps/v1", "ReplicaSet", 1, name="chat-1", uid="rs-1", replicas=4, ownerReferences=owner)
    assert allowed(await door.review(create(replicas, user=CONTROLLER)))
    child = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat-1", "uid": "rs-1", "controller": True}]
    for index in range(4):
        assert allowed(await door.review(create(pod(1, name=f"chat-1-{index}", ownerReferences=child), user=CONTROLLER)))
    assert await held(ledger) == 4
    forged = pod(1, name="mine", ownerReferences=child)
    assert not allowed(await door.review(create(forged)))
    elsewhere = {**forged, "metadata": {**forged["metadata"], "namespace": "team-b"}}
    assert not allowed(await door.review(create(elsewhere, user=CONTROLLER)))


async def test_a_replica_set_scaled_by_hand_is_charged(make: ServiceMaker, ledger: QuotaLedger) -> None:
    door = make()
    await door.review(create(deployment(1, 2, uid="d-1")))
    owner = [{"uid": "d-1", "controller": True}]
    replicas = templated("apps/v1", "ReplicaSet", 1, name="r", uid="rs-1", replicas=2, ownerReferences=owner)
    await door.review(create(replicas, user=CONTROLLER))
    grown = templated("apps/v1", "ReplicaSet", 1, name="r", uid="rs-1", replicas=3, ownerReferences=owner)
    assert not allowed(await door.review(update(grown, replicas)))
    assert allowed(await door.review(update(grown, replicas, user=CONTROLLER)))
    assert await held(ledger) == 2


async def test_deleting_the_owner_ends_its_mark(make: ServiceMaker, database: Database) -> None:
    door = make()
    await door.review(create(deployment(1, 1, uid="d-1")))
    await door.review(remove(deployment(1, 1, uid="d-1")))
    async with database.session(reading=True) as session:
        assert await session.scalar(select(func.count()).select_from(OwnerRow)) == 0


async def test_dry_run_changes_nothing(
    make: ServiceMaker, ledger: QuotaLedger, recorder: MemoryRecorder, database: Database
) -> None:
    """failure-cases/admission.md 34."""
    door = make()
    for index in range(100):
        assert allowed(await door.review(create(pod(1, name=f"p{index}"), dry_run=True)))
    assert not allowed(await door.review(create(pod(8), dry_run=True)))
    assert await held(ledger) == 0
    assert recorder.entries == []
    async with database.session(reading=True) as session:
        for table in (ChargeRow, RequestRow):
            assert await session.scalar(select(func.count()).select_from(table)) == 0


async def test_a_retry_is_charged_once_and_gets_the_same_answer(
    make: ServiceMaker, ledger: QuotaLedger, recorder: MemoryRecorder
) -> None:
    """failure-cases/admission.md 36."""
    data = create(pod(3), uid="same")
    first = await make().review(data)
    again = await make().review(data)
    assert again == first
    assert await held(ledger) == 3
    assert len(recorder.entries) == 1
    together = create(pod(1, name="q"), uid="twice")
    door = make()
    assert all(allowed(answer) for answer in await asyncio.gather(*(door.review(together) for _ in range(5))))
    assert await held(ledger) == 4


async def test_a_uid_with_another_body_is_refused(make: ServiceMaker, ledger: QuotaLedger) -> None:
    door = make()
    await door.review(create(pod(1), uid="same"))
    answer = await door.review(create(pod(1, name="other"), uid="same"))
    assert not allowed(answer)
    assert answer["response"]["status"]["code"] == 409
    assert await held(ledger) == 1


async def test_without_a_record_nothing_is_admitted_or_charged(
    make: ServiceMaker, ledger: QuotaLedger, recorder: MemoryRecorder
) -> None:
    door = make()
    await door.review(create(deployment(1, 1, uid="d-1")))
    recorder.broken = True
    for data in (create(pod(1)), update(deployment(1, 3), deployment(1, 1)), remove(deployment(1, 1, uid="d-1"))):
        answer = await door.review(data)
        assert not allowed(answer)
        assert answer["response"]["status"]["code"] == 503
        assert await held(ledger) == 1
    recorder.broken = False
    owner = [{"uid": "d-1", "controller": True}]
    assert allowed(await door.review(create(pod(4, name="covered", ownerReferences=owner), user=CONTROLLER)))
    assert allowed(await door.review(update(deployment(1, 3), deployment(1, 1))))
    assert await held(ledger) == 3


async def test_three_replicas_never_overshoot(make: ServiceMaker, ledger: QuotaLedger) -> None:
    """failure-cases/admission.md 33."""
    doors = [make(config(10)) for _ in range(3)]
    answers = await asyncio.gather(*(doors[i % 3].review(create(pod(1, name=f"p{i}"))) for i in range(50)))
    assert sum(allowed(answer) for answer in answers) == 10
    assert await held(ledger) == 10
    refused = [answer["response"]["status"]["message"] for answer in answers if not allowed(answer)]
    assert all("admission/gpu-quota" in message for message in refused)


async def test_a_namespace_that_moves_takes_its_charge_along(make: ServiceMaker, ledger: QuotaLedger) -> None:
    await make().review(create(deployment(1, 2)))
    assert allowed(await make(config(team="b")).review(update(deployment(1, 3), deployment(1, 2))))
    assert {account.team: account.used_shares // GPU for account in await ledger.accounts("acme")} == {"a": 0, "b": 3}


BAD_OBJECTS: dict[str, dict[str, Any]] = {
    "half a device": pod("500m"),
    "text for replicas": deployment(1, "2"),
    "a DaemonSet": templated("apps/v1", "DaemonSet", 1),
    "no template": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", "namespace": "team-a"},
        "spec": {},
    },
    "another namespace inside": {**pod(1), "metadata": {"name": "p", "namespace": 7}},
}


@pytest.mark.parametrize("found", BAD_OBJECTS.values(), ids=BAD_OBJECTS.keys())
async def test_what_cannot_be_read_is_a_recorded_denial(
    found: dict[str, Any], make: ServiceMaker, recorder: MemoryRecorder
) -> None:
    answer = await make().review(create(found))
    assert not allowed(answer)
    assert answer["response"]["status"]["code"] == 400
    (entry,) = recorder.entries
    assert entry.decision is not None
    assert entry.decision["violations"][0]["rule"] == "door/readable"


async def test_an_unknown_kind_with_a_gpu_is_denied(make: ServiceMaker) -> None:
    found = {
        "apiVersion": "acme.example/v1",
        "kind": "Trainer",
        "metadata": {"name": "r", "namespace": "team-a"},
        "spec": {"a": "nvidia.com/gpu"},
    }
    assert not allowed(await make().review(create(found)))
    assert allowed(await make().review(create({**found, "spec": {}})))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"request":{"uid":7}}', create(pod(1)).replace(b"v1", b"v9")])
async def test_nobody_to_answer(data: bytes, make: ServiceMaker) -> None:
    if b"v9" in data:
        assert not allowed(await make().review(data))
    else:
        with pytest.raises(BadInput):
            await make().review(data)


async def test_too_large(make: ServiceMaker) -> None:
    with pytest.raises(TooLarge):
        await make().review(b"[" * (4 * 2**20))


async def test_an_engine_that_fails_is_a_denial_without_its_words(
    make: ServiceMaker, engine: QuotaEngine, recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """failure-cases/admission.md 39."""

    async def fail(*_: Any) -> Any:
        raise RuntimeError("secret words")

    engine.decide_async = fail  # type: ignore[method-assign]
    answer = await make().review(create(pod(1)))
    assert not allowed(answer)
    assert "secret" not in json.dumps(answer)
    assert "secret" not in caplog.text
    assert "RuntimeError" in caplog.text
    assert len(recorder.entries) == 1


class GoneModels(MemoryModels):
    async def model(self, tenant: str, ref: ModelRef) -> ModelFact | None:
        raise Unavailable("the registry does not answer")


async def test_a_registry_that_does_not_answer_leaves_the_fact_out(make: ServiceMaker, engine: QuotaEngine) -> None:
    found = pod(1, annotations={"portcullis.dev/model": "llama-3@7"})
    await make(models=GoneModels()).review(create(found))
    assert "models" not in engine.inputs[0][1]["facts"]
    fact = ModelFact(name="llama-3", version="7", tenant="acme", author="ref:x", manifest_digest="sha256:" + "b" * 64)
    await make(models=MemoryModels({("acme", "llama-3@7"): fact})).review(create(found))
    assert engine.inputs[1][1]["facts"]["models"][0]["name"] == "llama-3"


async def test_no_name_of_a_person_reaches_the_input_or_the_record(
    make: ServiceMaker, engine: QuotaEngine, recorder: MemoryRecorder
) -> None:
    door = make()
    await door.review(create(pod(1), user="canary@acme.example"))
    await door.review(create(pod("x", name="bad"), user="canary@acme.example"))
    assert "canary" not in json.dumps(engine.inputs[0][1])
    assert "canary" not in repr(recorder.entries)


async def test_the_service_account_is_read(make: ServiceMaker, engine: QuotaEngine) -> None:
    await make().review(create(pod(1), user="system:serviceaccount:team-a:builder"))
    principal = engine.inputs[0][1]["request"]["principal"]
    assert (principal["kind"], principal["namespace"], principal["team"]) == ("service_account", "team-a", "a")


async def test_a_record_lost_on_the_way_is_not_an_admission(
    make: ServiceMaker, recorder: MemoryRecorder, ledger: QuotaLedger
) -> None:
    async def lost(*_: Any, **__: Any) -> str:
        raise EvidenceUnavailable("disk full")

    recorder.decision = lost  # type: ignore[method-assign]
    assert not allowed(await make().review(create(pod(1))))
    assert await held(ledger) == 0


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_of_the_same_admissions_charges_the_same(seed: int, make: ServiceMaker, ledger: QuotaLedger) -> None:
    import random

    steps = [create(pod(gpus, name=f"p{gpus}")) for gpus in (1, 2, 3)] + [
        create(deployment(2, 2)),
        create(deployment(1, 0, name="z")),
    ]
    random.Random(seed).shuffle(steps)
    door = make(config(100))
    for step in steps:
        assert allowed(await door.review(step))
    assert await held(ledger) == 10


def running(gpus: int, model: str, **more: Any) -> dict[str, Any]:
    found = deployment(gpus, **more)
    found["spec"]["template"]["metadata"]["annotations"] = {"portcullis.dev/model": model}
    return found


@pytest.fixture
async def deployments(database: Database) -> Deployments:
    """Over a registry that knows llama@7 and llama@8."""
    models = Models(Ledger(database, recorder=MemoryRecorder(), commitments=MemoryCommitments(), clock=FixedClock()))
    for version in ("7", "8"):
        await models.register(ModelRef("llama", version), by=Principal("person:a", "user", "acme"), datasets=[])
    return Deployments(database, FixedClock())


async def named(deployments: Deployments) -> list[tuple[str, str, str]]:
    return [(item.environment, item.workload, item.model) for item in await deployments.list("acme")]


async def test_the_join_from_workload_to_version(
    make: ServiceMaker, deployments: Deployments, recorder: MemoryRecorder
) -> None:
    """Admitted, moved to another version, kept through what says nothing about it, and ended with the object."""
    door = make()
    assert allowed(await door.review(create(running(1, "llama@7"))))
    assert await named(deployments) == [("team-a", "Deployment/chat", "llama@7")]
    assert recorder.entries[-1].details["models"] == ["llama@7"]
    assert (await deployments.list("acme"))[0].decision_id == (recorder.entries[-1].decision or {})["decision_id"]
    assert allowed(await door.review(update(running(1, "llama@8"), running(1, "llama@7"))))
    assert await named(deployments) == [("team-a", "Deployment/chat", "llama@8")]
    assert not allowed(await door.review(update(running(9, "llama@7"), running(1, "llama@8"))))
    assert recorder.entries[-1].details["models"] == ["llama@7"], "a denial names what was asked for too"
    assert await named(deployments) == [("team-a", "Deployment/chat", "llama@8")], "a denial moves nothing"
    kept = running(1, "llama@8", finalizers=["a/b"])
    assert allowed(await door.review(remove(kept)))
    assert len(await named(deployments)) == 1, "a finalizer keeps it"
    assert allowed(await door.review(remove(running(1, "llama@8"))))
    assert recorder.entries[-1].details["gone"] is True
    assert await named(deployments) == []


async def test_dry_runs_and_pods_of_controllers_are_no_deployments(make: ServiceMaker, deployments: Deployments) -> None:
    door = make()
    assert allowed(await door.review(create(running(1, "llama@7"), dryRun=True)))
    assert await named(deployments) == []
    owner = running(1, "llama@7", uid="u-owner")
    assert allowed(await door.review(create(owner)))
    child = pod(
        1, name="chat-1", ownerReferences=[{"uid": "u-owner", "controller": True, "kind": "Deployment", "name": "chat"}]
    )
    child["metadata"]["annotations"] = {"portcullis.dev/model": "llama@7"}
    assert allowed(await door.review(create(child, userInfo={"username": CONTROLLER})))
    assert await named(deployments) == [("team-a", "Deployment/chat", "llama@7")]


async def test_what_is_not_on_record_was_not_deployed(
    make: ServiceMaker, deployments: Deployments, recorder: MemoryRecorder, ledger: QuotaLedger
) -> None:
    door = make()
    assert allowed(await door.review(create(running(1, "llama@7"))))
    recorder.broken = True
    assert not allowed(await door.review(update(running(2, "llama@8"), running(1, "llama@7"))))
    assert await named(deployments) == [("team-a", "Deployment/chat", "llama@7")]
    assert await held(ledger) == 1


async def test_what_cannot_be_kept_is_not_admitted(
    make: ServiceMaker, deployments: Deployments, ledger: QuotaLedger, recorder: MemoryRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: Any, **__: Any) -> Any:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(Deployments, "place", gone)
    answer = await make().review(create(running(1, "llama@7")))
    assert not allowed(answer)
    assert await held(ledger) == 0
    assert recorder.entries[-1].decision is not None
    assert recorder.entries[-1].decision["allow"] is False


async def test_a_create_that_will_be_refused_hides_nothing(make: ServiceMaker, deployments: Deployments) -> None:
    """The API server answers AlreadyExists after we admitted, and what runs under the name goes on."""
    door = make()
    assert allowed(await door.review(create(running(1, "llama@7"))))
    assert allowed(await door.review(create(running(1, "llama@8"))))
    assert ("team-a", "Deployment/chat", "llama@7") in await named(deployments)
    assert allowed(await door.review(update(running(1, "llama@7"), running(1, "llama@7"))))
    assert await named(deployments) == [("team-a", "Deployment/chat", "llama@7")]


def child(kind: str, name: str, owner: str, *, gpus: Any = None, model: str = "llama@7") -> dict[str, Any]:
    references = [{"uid": owner, "controller": True}]
    if kind == "Pod":
        found = pod(gpus, name=name, ownerReferences=references)
        found["metadata"]["annotations"] = {"portcullis.dev/model": model}
        return found
    found = templated("apps/v1", kind, gpus, name=name, uid=f"u-{name}", replicas=1, ownerReferences=references)
    found["spec"]["template"]["metadata"]["annotations"] = {"portcullis.dev/model": model}
    return found


@pytest.mark.parametrize("gpus", [1, None], ids=["with GPUs", "without"])
async def test_the_chain_from_deployment_to_pod_is_one_deployment(
    gpus: Any, make: ServiceMaker, deployments: Deployments, recorder: MemoryRecorder
) -> None:
    door = make()
    assert allowed(await door.review(create(running(gpus, "llama@7", uid="u-1"))))
    assert "covered" not in recorder.entries[-1].details
    for found in (child("ReplicaSet", "chat-1", "u-1", gpus=gpus), child("Pod", "chat-1-a", "u-chat-1", gpus=gpus)):
        assert allowed(await door.review(create(found, user=CONTROLLER)))
        assert recorder.entries[-1].details["covered"] is True
    assert await named(deployments) == [("team-a", "Deployment/chat", "llama@7")]
    by_hand = child("Pod", "mine", "u-1", gpus=gpus)
    assert allowed(await door.review(create(by_hand)))
    assert "covered" not in recorder.entries[-1].details, "an owner that a person claims stands for nothing"
    assert ("team-a", "Pod/mine", "llama@7") in await named(deployments)


async def test_an_owner_without_gpus_pays_for_none(make: ServiceMaker, ledger: QuotaLedger, deployments: Deployments) -> None:
    """It stands for its pods as a deployment; devices that somebody adds to them on the way are charged."""
    door = make()
    assert allowed(await door.review(create(running(None, "llama@7", uid="u-1"))))
    assert await held(ledger) == 0
    assert allowed(await door.review(create(child("Pod", "chat-1", "u-1", gpus=3), user=CONTROLLER)))
    assert await held(ledger) == 3
    assert not allowed(await door.review(create(child("Pod", "chat-2", "u-1", gpus=3), user=CONTROLLER)))
    assert allowed(await door.review(remove(running(None, "llama@7", uid="u-1"))))
    assert await named(deployments) == []


async def test_pods_that_have_no_name_yet_are_not_one(make: ServiceMaker, deployments: Deployments) -> None:
    door = make()
    for model, uid in (("llama@7", "u-1"), ("llama@8", "u-2")):
        found = child("Pod", "", "", model=model)
        found["metadata"] |= {"uid": uid, "generateName": "chat-"}
        assert allowed(await door.review(create(found)))
    assert sorted(model for _, _, model in await named(deployments)) == ["llama@7", "llama@8"]


async def test_what_is_no_workload_says_nothing_of_models(make: ServiceMaker, recorder: MemoryRecorder) -> None:
    found = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "team-a"}}
    assert allowed(await make().review(create(found)))
    assert "models" not in recorder.entries[-1].details


async def test_a_version_nobody_registered_is_on_record(
    make: ServiceMaker, deployments: Deployments, recorder: MemoryRecorder
) -> None:
    await make().review(create(running(1, "unknown@1")))
    assert recorder.entries[-1].details["models"] == ["unknown@1"]
    assert await named(deployments) == []
