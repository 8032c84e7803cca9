from __future__ import annotations

from typing import Any

import pytest

from admission import decide, review
from admission.accelerators import host_access, is_accelerator, mentioned
from admission.decide import Asked
from tests.unit.admission.reviews import TABLE, container, document, pod

NAMES = [
    "nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-7g.80gb", "amd.com/gpu", "gpu.intel.com/i915_gpu", "habana.ai/gaudi",
    "google.com/tpu", "aws.amazon.com/neuroncore", "huawei.com/Ascend910", "requests.nvidia.com/gpu", "volcano.sh/vgpu-number",
    "aliyun.com/gpu-mem", "tencent.com/vcuda-core", "gpu.intel.com/i915_monitoring", "nvidia.com/GRID_T4-1Q", "NVIDIA.COM/GPU",
]  # fmt: skip
OTHERS = [
    "cpu",
    "memory",
    "hugepages-2Mi",
    "ephemeral-storage",
    "rdma/ib",
    "smarter-devices/fuse",
    "example.com/licence",
    "nvidia.com/hostdev",
    "nvidia.com/rdma_shared",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_accelerators(name: str) -> None:
    assert is_accelerator(name, TABLE)


@pytest.mark.parametrize("name", OTHERS)
def test_names_of_other_things(name: str) -> None:
    assert not is_accelerator(name, TABLE)


def test_the_table_makes_any_name_one() -> None:
    assert is_accelerator("acme.example/fast", {"acme.example/fast": 1})


HOLDERS: dict[str, Any] = {
    "a key": {"spec": {"worker": {"limits": {"nvidia.com/gpu": 1}}}},
    "a value": {"spec": {"gpuType": "nvidia.com/gpu", "gpuCount": 8}},
    "inside a text": {"data": {"template.yaml": "limits:\n  nvidia.com/gpu: 8\n"}},
    "in a list": {"spec": [[[{"resources": "amd.com/gpu=1"}]]]},
    "a device class": {"spec": {"devices": {"requests": [{"deviceClassName": "gpu.nvidia.com"}]}}},
    "upper case": {"spec": {"x": "NVIDIA.com/GPU"}},
    "an operator's own name": {"spec": {"resource": "acme/fast"}},
}


@pytest.mark.parametrize("found", HOLDERS.values(), ids=HOLDERS.keys())
def test_an_accelerator_anywhere_in_an_object_is_found(found: Any) -> None:
    assert mentioned(found, {**TABLE, "acme/fast": 1})


def test_an_object_without_any() -> None:
    assert not mentioned({"data": {"a": "cpu: 4", "b": "registry.example/nvidia", "c": "gpu"}, "n": [1, None, True]}, TABLE)


def spec(main: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"containers": [{**container(), **(main or {})}], **more}


def env(name: str, value: Any = None, **more: Any) -> dict[str, Any]:
    return {"env": [{"name": name, "value": value, **more}]}


def host(path: str) -> dict[str, Any]:
    return {"volumes": [{"name": "d", "hostPath": {"path": path}}]}


PRIVILEGED = {"securityContext": {"privileged": True}}
TAKERS: dict[str, dict[str, Any]] = {
    "all": spec(env("NVIDIA_VISIBLE_DEVICES", "all")),
    "by index": spec(env("NVIDIA_VISIBLE_DEVICES", "0")),
    "from elsewhere": spec(env("NVIDIA_VISIBLE_DEVICES", valueFrom={"configMapKeyRef": {"name": "x", "key": "y"}})),
    "by a variable": spec(env("NVIDIA_VISIBLE_DEVICES", "$(DEVICES)")),
    "in an init container": spec(initContainers=[{**container(), **env("NVIDIA_VISIBLE_DEVICES", "all")}]),
    "in an ephemeral container": spec(ephemeralContainers=[{**container(), **env("NVIDIA_VISIBLE_DEVICES", "all")}]),
    "runtime class": spec(runtimeClassName="nvidia"),
    "device file": spec(**host("/dev/nvidia0")),
    "devices behind dots": spec(**host("/var/../dev//nvidia0")),
    "the device folder": spec(**host("/dev")),
    "the whole node": spec(**host("/")),
    "render nodes": spec(**host("/dev/dri/renderD128")),
    "AMD's": spec(**host("/dev/kfd")),
    "through another process's root": spec(**host("/proc/1/root/dev/nvidia0")),
    "the driver container's folder": spec(**host("/run/nvidia/driver/dev")),
    "Ascend's manager": spec(**host("/dev/hisi_hdc")),
    "by UUID": spec(env("NVIDIA_VISIBLE_DEVICES", "GPU-8a56a4bc-0f3e")),
    "by MIG index": spec(env("NVIDIA_VISIBLE_DEVICES", "0:0,1:1")),
    "in small letters": spec(env("nvidia_visible_devices", "all")),
    "void among others": spec(env("NVIDIA_VISIBLE_DEVICES", "void,0")),
    "Neuron's list": spec(env("AWS_NEURON_VISIBLE_DEVICES", "ALL")),
    "a list with its prefix cut off": spec({"envFrom": [{"prefix": "NVIDIA_VISIBLE_", "configMapRef": {"name": "x"}}]}),
    "a list that a GPU runtime would read": spec({"envFrom": [{"secretRef": {"name": "x"}}]}, runtimeClassName="nvidia-cdi"),
    "a list that some GPU runtime would read": spec({"envFrom": [{"secretRef": {"name": "x"}}]}, runtimeClassName="gpu"),
    "privileged on a GPU node": spec(PRIVILEGED, nodeSelector={"nvidia.com/gpu.present": "true"}),
    "privileged that tolerates GPU nodes": spec(PRIVILEGED, tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}]),
    "privileged with a GPU image": spec({**PRIVILEGED, "image": "registry.acme.example/ml/cuda:12"}),
    "privileged with a GPU program's variables": spec({**PRIVILEGED, **env("CUDA_VISIBLE_DEVICES", "0")}),
    "a host process on a GPU node": spec(
        {"securityContext": {"windowsOptions": {"hostProcess": True}}}, nodeSelector={"amd.com/gpu.family": "AI"}
    ),
    "volume list": spec({"volumeMounts": [{"name": "d", "mountPath": "/var/run/nvidia-container-devices/all"}]}),
}


@pytest.mark.parametrize("found", TAKERS.values(), ids=TAKERS.keys())
def test_devices_taken_without_a_request(found: dict[str, Any]) -> None:
    assert "gpu_without_request" in {use.kind for use in host_access(found, {}, "spec", has_request=False)}


def test_the_annotation_that_names_devices() -> None:
    found = host_access(spec(), {"annotations": {"cdi.k8s.io/mine": "nvidia.com/gpu=all"}}, "spec", has_request=False)
    assert [use.kind for use in found] == ["gpu_without_request"]


ALLOCATIONS = [
    "gpu-fraction", "gpu-memory", "gpu-fraction-num-devices", "run.ai/gpu-limit", "runai-allocated-gpus", "hami.io/vgpu-devices-to-allocate",
    "hami.io/dcu-devices-allocated", "volcano.sh/vgpu-ids-new", "volcano.sh/gpu-index", "ALIYUN_COM_GPU_MEM_IDX", "GPU-Fraction",
    "scheduling.koordinator.sh/device-allocated", "elasticgpu.io/container-main", "tencent.com/predicate-gpu-idx-0",
]  # fmt: skip


@pytest.mark.parametrize("key", ALLOCATIONS)
def test_an_annotation_that_hands_out_devices(key: str) -> None:
    """On a pod that asked for none it takes them; on one that asked, a scheduler writes down what it was given."""
    found = host_access(spec(), {"annotations": {key: "0.5"}}, "spec", has_request=False)
    assert [(use.kind, use.path) for use in found] == [("gpu_without_request", f"spec.annotations[{key}]")]
    assert host_access(spec(), {"annotations": {key: "0.5"}}, "spec", has_request=True) == []


@pytest.mark.parametrize(
    "key", ["portcullis.dev/model", "nvidia.com/use-gputype", "volcano.sh/queue-name", "gpu-team", "hami.io/webhook"]
)
def test_other_annotations_take_nothing(key: str) -> None:
    assert host_access(spec(), {"annotations": {key: "x"}}, "spec", has_request=False) == []


HARMLESS: dict[str, tuple[dict[str, Any], bool]] = {
    "variables from elsewhere": (spec({"envFrom": [{"configMapRef": {"name": "x"}}]}), False),
    "with a prefix of its own": (
        spec({"envFrom": [{"prefix": "APP_", "configMapRef": {"name": "x"}}]}, runtimeClassName="nvidia"),
        True,
    ),
    "beside a request": (spec({**container(1), "envFrom": [{"configMapRef": {"name": "x"}}]}, runtimeClassName="nvidia"), True),
    "beside a claim": (
        spec(
            {"resources": {"claims": [{"name": "d"}]}, "envFrom": [{"configMapRef": {"name": "x"}}]}, runtimeClassName="nvidia"
        ),
        True,
    ),
    "a GPU image that is not privileged": (spec({"image": "registry.acme.example/nvidia/cuda:12"}), False),
}


@pytest.mark.parametrize(("found", "has_request"), HARMLESS.values(), ids=HARMLESS.keys())
def test_what_takes_no_devices_is_left_alone(found: dict[str, Any], has_request: bool) -> None:
    assert host_access(found, {}, "spec", has_request=has_request, table=TABLE) == []


def test_env_wins_over_env_from() -> None:
    """Stating the runtime's lists as void closes `envFrom`; leaving one out leaves it open."""
    lists = ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES"]
    for source in ({"prefix": "NVIDIA_", "configMapRef": {"name": "x"}}, {"configMapRef": {"name": "x"}}):
        closed = {"env": [{"name": name, "value": "void"} for name in lists], "envFrom": [source]}
        assert host_access(spec(closed, runtimeClassName="nvidia"), {}, "spec", has_request=True) == []
        ajar = spec({**closed, "env": closed["env"][1:]}, runtimeClassName="nvidia")
        assert [use.path for use in host_access(ajar, {}, "spec", has_request=True)] == ["spec.containers[0].envFrom[0]"]


@pytest.mark.parametrize("runtime", ["nvidia", "gpu", "rocm"])
def test_env_from_counts_under_any_gpu_runtime_beside_a_request(runtime: str) -> None:
    found = host_access(
        spec({"envFrom": [{"secretRef": {"name": "x"}}]}, runtimeClassName=runtime), {}, "spec", has_request=True
    )
    assert [use.path for use in found] == ["spec.containers[0].envFrom[0]"]


def test_a_privileged_container_beside_a_request_sees_more_than_it_asked_for() -> None:
    found = host_access(spec({**container(1), **PRIVILEGED}), {}, "spec", has_request=True)
    assert [use.kind for use in found] == ["privileged", "gpu_without_request"]


def test_a_host_folder_of_another_name_is_a_host_path_only() -> None:
    assert [use.kind for use in host_access(spec(**host("/home/dev")), {}, "spec", has_request=False)] == ["host_path"]


@pytest.mark.parametrize("value", ["none", "void", "", "NONE"])
def test_no_devices_are_none(value: str) -> None:
    assert host_access(spec(env("NVIDIA_VISIBLE_DEVICES", value)), {}, "spec", has_request=False) == []


def test_the_runtime_class_is_fine_with_a_request() -> None:
    assert host_access(spec(runtimeClassName="nvidia"), {}, "spec", has_request=True) == []


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (spec(hostNetwork=True), "host_network"),
        (spec(hostPID=True), "host_pid"),
        (spec(hostIPC=True), "host_ipc"),
        (spec(**host("/srv")), "host_path"),
        (spec({"securityContext": {"privileged": True}}), "privileged"),
        (spec({"securityContext": {"windowsOptions": {"hostProcess": True}}}), "privileged"),
    ],
)
def test_ways_to_the_node(found: dict[str, Any], kind: str) -> None:
    assert [use.kind for use in host_access(found, {}, "spec", has_request=False)] == [kind]


def asked(found: dict[str, Any]) -> Asked:
    return decide.asked(review.read(document("CREATE", found)), TABLE)


def test_an_unknown_kind_is_found_out_only_with_an_accelerator() -> None:
    cluster = {
        "apiVersion": "acme.example/v1",
        "kind": "Trainer",
        "metadata": {"name": "r"},
        "spec": {"limits": {"nvidia.com/gpu": 1}},
    }
    assert asked(cluster) == Asked(known_kind=False, accelerators_found=True)
    assert asked({**cluster, "spec": {}}) == Asked(known_kind=False, accelerators_found=False)


def test_kubernetes_own_objects_may_name_devices() -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"capacity": {"nvidia.com/gpu": "8"}}}
    assert not asked(node).accelerators_found
    assert asked({**node, "apiVersion": "evil.example/v1"}).accelerators_found
    queue = {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "ClusterQueue",
        "metadata": {"name": "q"},
        "spec": {"r": ["nvidia.com/gpu"]},
    }
    assert not asked(queue).accelerators_found


def test_a_claim_named_in_an_unknown_kind_brings_devices() -> None:
    group = {"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup", "metadata": {"name": "g"}}
    assert not asked({**group, "spec": {"minCount": 2}}).accelerators_found
    claims = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    assert asked({**group, "spec": {"deep": [{"resourceClaims": claims}]}}).accelerators_found


def test_a_claim_of_another_group_is_an_unknown_kind() -> None:
    claim = {
        "apiVersion": "evil.example/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": "c"},
        "spec": {"class": "gpu.nvidia.com"},
    }
    assert asked(claim) == Asked(known_kind=False, accelerators_found=True)


def test_a_known_kind_says_what_it_found() -> None:
    assert asked(pod(1)).accelerators_found
    assert not asked(pod()).accelerators_found
