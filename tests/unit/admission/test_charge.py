from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission.charge import Charge, charge
from admission.workloads import charge_object
from core.errors import BadInput
from tests.unit.admission.reviews import GPU, TABLE, container, deployment, pod, templated


def spec(containers: list[Any], init: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"containers": containers, "initContainers": init or [], **more}


def sidecar(gpus: Any) -> dict[str, Any]:
    return container(gpus, restartPolicy="Always")


def requests(amount: Any, name: str = "nvidia.com/gpu") -> dict[str, Any]:
    return {"name": "main", "resources": {"requests": {name: amount}}}


SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "nothing asked": (spec([container()]), 0),
    "sum of containers": (spec([container(1), container(2)]), 3),
    "a larger init container": (spec([container(1)], [container(8)]), 8),
    "a smaller init container": (spec([container(3)], [container(2)]), 3),
    "init containers run one by one": (spec([container(1)], [container(2), container(3)]), 3),
    "a sidecar adds up": (spec([container(3)], [sidecar(3)]), 6),
    "an init container after a sidecar": (spec([container(1)], [sidecar(2), container(5)]), 7),
    "an init container before a sidecar": (spec([container(1)], [container(5), sidecar(2)]), 5),
    "two sidecars": (spec([container(1)], [sidecar(2), sidecar(2)]), 5),
    "1k": (spec([container("1k")]), 1000),
    "1e3": (spec([container("1e3")]), 1000),
    "1000m": (spec([container("1000m")]), 1),
    "2Ki": (spec([container("2Ki")]), 2048),
    "a JSON number": (spec([container(2)]), 2),
    "zero": (spec([container("0")]), 0),
    "requests only": (spec([requests(2)]), 2),
    "overhead": (spec([container(1)], overhead={"nvidia.com/gpu": 1}), 2),
    "other resources": (spec([{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1.5Gi", "rdma/ib": "1"}}}]), 0),
    "null fields": ({"containers": [{"name": "a", "resources": None, "env": None}], "initContainers": None}, 0),
}
UNEQUAL = {"name": "a", "resources": {"limits": {"nvidia.com/gpu": 8}, "requests": {"nvidia.com/gpu": 1}}}
UNEQUAL_ZERO = {"name": "a", "resources": {"limits": {"nvidia.com/gpu": 0}, "requests": {"nvidia.com/gpu": 8}}}
BAD_SPECS: dict[str, Any] = {
    "not an object": [],
    "containers an object": {"containers": {}},
    "a container that is text": spec(["main"]),
    "half a device": spec([container("500m")]),
    "a negative": spec([container("-1")]),
    "a boolean": spec([container(True)]),
    "unreadable": spec([container("many")]),
    "more than can be counted": spec([container("9e15")]),
    "a sum beyond counting": spec([container("9e11")]),
    "request below limit": spec([UNEQUAL]),
    "limit zero, request eight": spec([UNEQUAL_ZERO]),
    "a slice of no known shape": spec([requests(1, "nvidia.com/mig-8g.80gb")]),
    "renamed device": spec([requests(80, "nvidia.com/gpu.shared")]),
    "another vendor": spec([requests(1, "amd.com/gpu")]),
    "an operator's own name": spec([requests(1, "acme.example/fast-gpu")]),
    "upper case": spec([requests(1, "NVIDIA.com/GPU")]),
    "pod level": spec([container(1)], resources={"limits": {"nvidia.com/gpu": 1}}),
    "an ephemeral container": spec([container(1)], ephemeralContainers=[container(1)]),
    "a claim": spec([container()], resourceClaims=[{"name": "gpu", "resourceClaimName": "x"}]),
    "a claim template": spec([container()], resourceClaims=[{"name": "gpu", "source": {"resourceClaimTemplateName": "x"}}]),
}


@pytest.mark.parametrize(("found", "gpus"), SHAPES.values(), ids=SHAPES.keys())
def test_shapes_of_pods(found: dict[str, Any], gpus: int) -> None:
    expected = {"nvidia.com/gpu": gpus} if gpus else {}
    assert charge(found, TABLE) == Charge(expected, gpus * GPU)


@pytest.mark.parametrize("found", BAD_SPECS.values(), ids=BAD_SPECS.keys())
def test_what_cannot_be_counted_is_never_zero(found: Any) -> None:
    with pytest.raises(BadInput):
        charge(found, TABLE)


def test_slices_are_charged_by_the_table() -> None:
    found = charge(spec([requests(7, "nvidia.com/mig-1g.10gb")]), TABLE)
    assert found == Charge({"nvidia.com/mig-1g.10gb": 7}, GPU)


def job(gpus: Any = 1, **more: Any) -> dict[str, Any]:
    found = templated("batch/v1", "Job", gpus)
    found["spec"].update(more)
    return found


def cron(gpus: Any = 1, job_spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    inner = {**job(gpus)["spec"], **(job_spec or {})}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {}, "spec": {"jobTemplate": {"spec": inner}, **more}}


OBJECTS: dict[str, tuple[dict[str, Any], int]] = {
    "Pod": (pod(2), 2),
    "Deployment": (deployment(2, 3), 6),
    "Deployment without replicas": (deployment(2, None), 2),
    "Deployment scaled to zero": (deployment(8, 0), 0),
    "StatefulSet": (templated("apps/v1", "StatefulSet", 1, replicas=4), 4),
    "ReplicaSet": (templated("apps/v1", "ReplicaSet", 1, replicas=4), 4),
    "ReplicationController": (templated("v1", "ReplicationController", 1, replicas=4), 4),
    "DaemonSet without GPUs": (templated("apps/v1", "DaemonSet"), 0),
    "Job": (job(2), 2),
    "parallel Job": (job(1, parallelism=4), 4),
    "Job with fewer completions": (job(1, parallelism=8, completions=2), 2),
    "Job with more completions": (job(1, parallelism=2, completions=100), 2),
    "suspended Job": (job(8, suspend=True), 0),
    "Job with parallelism 0": (job(8, parallelism=0), 0),
    "CronJob, one at a time": (cron(2, concurrencyPolicy="Forbid"), 2),
    "CronJob that replaces": (cron(2, {"parallelism": 3}, concurrencyPolicy="Replace"), 6),
    "CronJob suspended": (cron(2, suspend=True), 0),
    "CronJob without GPUs": (cron(None), 0),
}
BAD_OBJECTS: dict[str, Any] = {
    "text": "Pod",
    "no kind": {"apiVersion": "v1"},
    "unknown kind": {"apiVersion": "acme.example/v1", "kind": "Trainer", "spec": {"a": ["nvidia.com/gpu"]}},
    "a Deployment of another group": {**deployment(1), "apiVersion": "evil.example/v1"},
    "no template": {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {}},
    "spec is a list": {"apiVersion": "v1", "kind": "Pod", "spec": []},
    "replicas as text": deployment(1, "1"),
    "negative replicas": deployment(1, -1),
    "replicas true": deployment(1, True),
    "replicas beyond int32": deployment(1, 2**31),
    "a product beyond counting": deployment("1e9", 2**31 - 1),
    "DaemonSet": templated("apps/v1", "DaemonSet", 1),
    "CronJob that overlaps": cron(1, concurrencyPolicy="Allow"),
    "CronJob with the default policy": cron(1),
    "parallelism as text": job(1, parallelism="4"),
    "suspend as text": job(1, suspend="true"),
}


@pytest.mark.parametrize(("found", "gpus"), OBJECTS.values(), ids=OBJECTS.keys())
def test_shapes_of_workloads(found: dict[str, Any], gpus: int) -> None:
    assert charge_object(found, TABLE).gpu_shares == gpus * GPU


@pytest.mark.parametrize("found", BAD_OBJECTS.values(), ids=BAD_OBJECTS.keys())
def test_objects_that_cannot_be_counted(found: Any) -> None:
    with pytest.raises(BadInput):
        charge_object(found, TABLE)


amounts = st.integers(0, 16)
inits = st.lists(st.tuples(amounts, st.booleans()), max_size=4)


@given(st.lists(amounts, max_size=4), inits)
def test_the_charge_is_the_most_that_ever_runs_at_once(apps: list[int], init: list[tuple[int, bool]]) -> None:
    """The law behind the formula: walk through the pod's life and take the largest moment."""
    running = peak = 0
    for gpus, stays in init:
        peak = max(peak, running + gpus)
        running += gpus if stays else 0
    peak = max(peak, running + sum(apps))
    found = spec([container(n) for n in apps], [sidecar(n) if stays else container(n) for n, stays in init])
    assert charge(found, TABLE).gpu_shares == peak * GPU


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["containers", "initContainers", "resources", "limits", "nvidia.com/gpu", "name", "overhead"]), inner, max_size=4), max_leaves=20))  # fmt: skip
def test_any_value_is_charged_or_refused(value: Any) -> None:
    with contextlib.suppress(BadInput):
        assert charge(value, TABLE).gpu_shares >= 0
