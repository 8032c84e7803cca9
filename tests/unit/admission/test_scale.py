"""Scales and autoscalers: what grows the pods of another object is charged to it, or judged by the most it may do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from admission.ledger import QuotaLedger
from tests.unit.admission.conftest import ServiceMaker
from tests.unit.admission.reviews import create, deployment, document, pod_spec, update
from tests.unit.admission.test_service import CONTROLLER, allowed, held


def scale(name: str, old: int, new: int, plural: str = "deployments", group: str = "apps", **more: Any) -> bytes:
    before, after = (
        {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": name, "namespace": "team-a"},
            "spec": {"replicas": replicas},
        }
        for replicas in (old, new)
    )
    resource = {"group": group, "version": "v1", "resource": plural}
    return json.dumps(document("UPDATE", after, old=before, subResource="scale", resource=resource, **more)).encode()


def autoscaler(most: int | None, *, version: str = "autoscaling/v2", target: str = "chat", **metadata: Any) -> dict[str, Any]:
    keda = version.startswith("keda.sh")
    reference = {"name": target} if keda else {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    spec: dict[str, Any] = {"scaleTargetRef": reference}
    if most is not None:
        spec["maxReplicaCount" if keda else "maxReplicas"] = most
    kind = "ScaledObject" if keda else "HorizontalPodAutoscaler"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "grow", "namespace": "team-a", **metadata}, "spec": spec}


async def test_a_scale_is_charged_to_the_scaled_workload(make: ServiceMaker, ledger: QuotaLedger) -> None:
    """failure-cases/admission.md 16."""
    door = make()
    await door.review(create(deployment(1, 1)))
    assert not allowed(await door.review(scale("chat", 1, 5)))
    assert await held(ledger) == 1
    assert allowed(await door.review(scale("chat", 1, 4)))
    assert await held(ledger) == 4
    assert allowed(await door.review(scale("chat", 4, 2, user=CONTROLLER)))
    assert await held(ledger) == 2
    assert allowed(await door.review(scale("chat", 2, 0)))
    assert await held(ledger) == 0
    assert allowed(await door.review(scale("web", 1, 100)))


async def test_a_scale_that_is_behind_the_ledger_is_charged_in_full(make: ServiceMaker) -> None:
    door = make()
    await door.review(create(deployment(1, 1)))
    assert not allowed(await door.review(scale("chat", 9, 9)))


async def test_a_scale_of_a_kind_whose_replicas_are_groups(make: ServiceMaker, ledger: QuotaLedger) -> None:
    """failure-cases/admission.md 17."""
    door = make()
    groups = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "g", "namespace": "team-a"},
        "spec": {"replicas": 1, "leaderWorkerTemplate": {"size": 2, "workerTemplate": {"spec": pod_spec(1)}}},
    }
    assert allowed(await door.review(create(groups)))
    rest = ("leaderworkersets", "leaderworkerset.x-k8s.io")
    assert not allowed(await door.review(scale("g", 1, 3, *rest)))
    assert allowed(await door.review(scale("g", 1, 2, *rest)))
    assert await held(ledger) == 4


@pytest.mark.parametrize("version", ["autoscaling/v2", "autoscaling/v1", "keda.sh/v1alpha1"])
async def test_an_autoscaler_is_judged_by_its_maximum(make: ServiceMaker, ledger: QuotaLedger, version: str) -> None:
    """failure-cases/admission.md 18."""
    door = make()
    await door.review(create(deployment(1, 1)))
    small, large = autoscaler(4, version=version), autoscaler(100, version=version)
    assert allowed(await door.review(create(small)))
    assert not allowed(await door.review(update(large, small)))
    assert not allowed(await door.review(create(large)))
    assert allowed(await door.review(create(autoscaler(100, version=version, target="web"))))
    assert await held(ledger) == 1


async def test_keda_s_maximum_is_100_where_none_is_stated(make: ServiceMaker) -> None:
    door = make()
    await door.review(create(deployment(1, 1)))
    assert not allowed(await door.review(create(autoscaler(None, version="keda.sh/v1alpha1"))))
    assert allowed(await door.review(create(autoscaler(None))))


async def test_the_steps_of_an_autoscaler_that_came_first_are_charged(make: ServiceMaker, ledger: QuotaLedger) -> None:
    """failure-cases/admission.md 18, the other order."""
    door = make()
    assert allowed(await door.review(create(autoscaler(100))))
    assert allowed(await door.review(create(deployment(1, 1))))
    assert allowed(await door.review(scale("chat", 1, 4, user=CONTROLLER)))
    assert not allowed(await door.review(scale("chat", 4, 5, user=CONTROLLER)))
    assert await held(ledger) == 4


async def test_an_operator_s_autoscaler_is_paid_for_by_its_owner(make: ServiceMaker) -> None:
    door = make()
    service = {
        "apiVersion": "apps.nvidia.com/v1alpha1",
        "kind": "NIMService",
        "metadata": {"name": "nim", "namespace": "team-a", "uid": "n-1"},
        "spec": {
            "scale": {"enabled": True, "hpa": {"maxReplicas": 3}},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
        },
    }
    owner = [{"uid": "n-1", "controller": True}]
    assert allowed(await door.review(create(service)))
    child = deployment(1, 1, name="nim", uid="d-1", ownerReferences=owner)
    assert allowed(await door.review(create(child, user=CONTROLLER)))
    assert allowed(await door.review(create(autoscaler(3, target="nim", ownerReferences=owner), user=CONTROLLER)))
    assert not allowed(await door.review(create(autoscaler(3, target="nim", ownerReferences=owner))))
