"""What is an accelerator, and every way to get at one without asking the scheduler for it.

A resource is an accelerator when the operator's table prices it, or when its name follows a vendor's known form. A name that
looks like an accelerator and is not in the table cannot be counted, and what cannot be counted is denied.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator
from typing import Any

from admission import fields
from core.inputs import HostAccess

_VENDORS = (
    r"(?:(?:[a-z0-9-]+\.)*(?:amd\.com|habana\.ai|cambricon\.com|iluvatar\.(?:ai|com)|metax-tech\.com|mthreads\.com"
    r"|hygon\.com|enflame\.com|kunlunxin\.com|tenstorrent\.com|furiosa\.ai|rebellions\.ai|qualcomm\.com|gpu\.intel\.com)/"
    # NVIDIA's network operator names NICs in the same domain; everything else there is a GPU or a part of one (vGPUs and
    # KubeVirt's passed-through cards carry product names).
    r"|nvidia\.com/(?!(?:hostdev|mlnx|rdma|sriov|resib|roce|ib|nic|cx[0-9]|bf[0-9]|bluefield)))[a-z0-9._-]+"
)
_NAMES = (
    r"(?:[a-z0-9-]+\.)+[a-z]+/[a-z0-9._-]*"
    r"(?:gpu|tpu|npu|dcu|gcu|xpu|hpu|mlu|qaic|gaudi|ascend|davinci|neuron|cuda|mig-)[a-z0-9._-]*"
)
_CLAIMED = r"gpu\.(?:nvidia|intel|amd)\.com|mig\.nvidia\.com|tpu\.google\.com"
# KEP-5004: any device class by its name. What its devices are, only its price says.
_CLASSES = r"deviceclass\.resource\.kubernetes\.io/[a-z0-9._-]+"
# Open at the end: a name that goes on with a character that Kubernetes takes in no name is still no other thing.
_RESOURCE = re.compile(rf"{_VENDORS}|{_NAMES}|{_CLASSES}", re.IGNORECASE)
_ANYWHERE = re.compile(rf"(?<![a-z0-9.-])(?:{_VENDORS}|{_NAMES}|{_CLAIMED}|{_CLASSES})", re.IGNORECASE)

_DEVICE_LISTS = frozenset(
    {
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_MIG_CONFIG_DEVICES",
        "NVIDIA_MIG_MONITOR_DEVICES",
        "AMD_VISIBLE_DEVICES",
        "HABANA_VISIBLE_DEVICES",
        "ASCEND_VISIBLE_DEVICES",
        "CAMBRICON_VISIBLE_DEVICES",
        "MTHREADS_VISIBLE_DEVICES",
        "AWS_NEURON_VISIBLE_DEVICES",
    }
)
"""Variables by which a vendor's container runtime injects devices that nobody asked the scheduler for."""

_NO_DEVICES = frozenset({"", "none", "void"})
_DEVICE_PATHS = re.compile(
    r"(?:^|/root|/driver)/dev\Z|/dev/(?:nvidia|nvhost|nvmap|dri|kfd|mkfd|accel|vfio|davinci|hisi_hdc|devmm_svm|habanalabs|hl|neuron|apex|cambricon"
    r"|tenstorrent|mtgpu|mthreads|mxcd|iluvatar|xpu|gcu|qaic|rbln|rngd)"
)
"""Device files of accelerators, and the folder of all of them, wherever they are reached from (`/proc/1/root/dev/nvidia0` too)."""

_VOLUME_LIST = "/var/run/nvidia-container-devices"
"""The device plugin's `volume-mounts` strategy: a mount below this path is a request for that device."""

_RUNTIMES = re.compile(
    r"nvidia|gpu|cuda|habana|ascend|amd|rocm|neuron|hami|mthreads|cambricon|iluvatar|metax|kunlun|tpu", re.IGNORECASE
)
_GPU_IMAGES = re.compile(r"nvidia|cuda|rocm|gpu|triton|tensorrt|vllm|habana|gaudi|neuron|tpu", re.IGNORECASE)
_GPU_VARIABLES = ("CUDA_", "NVIDIA_", "ROCR_", "HIP_", "HSA_", "ZE_", "ONEAPI_", "HABANA_", "ASCEND_", "NEURON_", "TPU_")

_ALLOCATING = re.compile(
    r"gpu-(?:fraction|memory|sm-cores)[a-z.-]*|(?:[a-z.-]+\.)?run\.?ai/.*gpu.*|runai-.*gpu.*"
    r"|hami\.io/.*devices-(?:to-allocate|allocated)|volcano\.sh/v?gpu-.*|aliyun(?:_com_gpu|\.com/gpu).*"
    r"|scheduling\.koordinator\.sh/device-allocat.*|elasticgpu\.io/.*|tencent\.com/.*gpu.*",
    re.DOTALL,
)
"""Annotations by which sharing schedulers hand out devices: Run:ai and KAI take them as the request itself, HAMi, Volcano,
Aliyun's gpushare, Koordinator and Tencent's gpu-manager note there what a pod was given, and their device plugins believe it."""


def is_accelerator(name: str, table: Collection[str]) -> bool:
    """Whether a resource name is an accelerator's: priced by the table, or of a known vendor's form."""
    bare = name.removeprefix("requests.").removeprefix("limits.")
    return bare in table or bool(_RESOURCE.match(bare))


def mentioned(value: Any, table: Collection[str]) -> bool:
    """Whether an accelerator's name stands anywhere in a JSON value: as a key, as a text, or inside a longer text.

    For kinds whose pod templates we cannot find. A template may sit at any depth, in a string, or be made by the kind's
    own controller from a count and a name, so every text counts.
    """
    names = [name for name in table if name]
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, str) and (any(name in item for name in names) or _ANYWHERE.search(item)):
            return True
    return False


def host_access(
    spec: dict[str, Any], metadata: dict[str, Any], where: str, *, has_request: bool, table: Collection[str] = ()
) -> list[HostAccess]:
    """Every way in which this pod reaches the node or its devices past the scheduler.

    `where` is the path of `spec`; `has_request` says whether the pod asks for accelerators in the proper way.
    Known in the field: k8s-device-plugin README and issue 87 (NVIDIA_VISIBLE_DEVICES), CDI annotations.
    """
    found: list[HostAccess] = []
    for key, kind in (("hostNetwork", "host_network"), ("hostPID", "host_pid"), ("hostIPC", "host_ipc")):
        if fields.flag(spec.get(key), f"{where}.{key}"):
            found.append(HostAccess.model_validate({"path": f"{where}.{key}", "kind": kind}))
    runtime = fields.text(spec.get("runtimeClassName"), f"{where}.runtimeClassName") or ""
    gpu_runtime = bool(_RUNTIMES.search(runtime))
    if gpu_runtime and not has_request:
        found.append(HostAccess(path=f"{where}.runtimeClassName", kind="gpu_without_request"))
    found.extend(_annotations(metadata, where, has_request=has_request))
    found.extend(_volumes(spec, where))
    placed = any(mentioned(spec.get(key), table) for key in ("nodeSelector", "affinity", "tolerations"))
    for path, container in containers(spec, where):
        found.extend(_container(container, path, near_gpus=has_request or gpu_runtime or placed))
        if not asks(container, table):
            found.extend(_unread_variables(container, path, runtime if gpu_runtime else ""))
    return found


def asks(container: dict[str, Any], table: Collection[str]) -> bool:
    """Whether a container asks for devices of its own in the proper way."""
    resources = container.get("resources")
    if not isinstance(resources, dict):
        return False
    names = [name for key in ("limits", "requests") if isinstance(resources.get(key), dict) for name in resources[key]]
    return bool(resources.get("claims")) or any(is_accelerator(name, table) for name in names)


def _annotations(metadata: dict[str, Any], where: str, *, has_request: bool) -> Iterator[HostAccess]:
    """CDI's name devices outright. The sharing schedulers write theirs on pods that asked, which is as it should be."""
    for key in fields.mapping(metadata.get("annotations"), "metadata.annotations"):
        lower = key.lower()
        if lower.startswith("cdi.k8s.io/") or (not has_request and _ALLOCATING.fullmatch(lower)):
            yield HostAccess(path=f"{where}.annotations[{key[:200]}]", kind="gpu_without_request")


def containers(spec: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every container of a pod, of each of the three kinds, with its path."""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from fields.items(spec, key, where)


def _volumes(spec: dict[str, Any], where: str) -> Iterator[HostAccess]:
    for path, volume in fields.items(spec, "volumes", where):
        if volume.get("hostPath") is None:
            continue
        yield HostAccess(path=path, kind="host_path")
        host = fields.mapping(volume["hostPath"], f"{path}.hostPath")
        place = posixpath.normpath("/" + (fields.text(host.get("path"), f"{path}.hostPath.path") or "")).replace("//", "/")
        if place == "/" or _DEVICE_PATHS.search(place):
            yield HostAccess(path=f"{path}.hostPath", kind="gpu_without_request")


def _container(container: dict[str, Any], path: str, *, near_gpus: bool) -> Iterator[HostAccess]:
    security = fields.mapping(container.get("securityContext"), f"{path}.securityContext")
    windows = fields.mapping(security.get("windowsOptions"), f"{path}.securityContext.windowsOptions")
    if fields.flag(security.get("privileged"), f"{path}.securityContext.privileged") or fields.flag(
        windows.get("hostProcess"), f"{path}.securityContext.windowsOptions.hostProcess"
    ):
        yield HostAccess(path=f"{path}.securityContext", kind="privileged")
        # It sees every device of its node, whatever it asked for.
        if near_gpus or _wants_gpus(container, path):
            yield HostAccess(path=f"{path}.securityContext", kind="gpu_without_request")
    for place, variable in fields.items(container, "env", path):
        name = (fields.text(variable.get("name"), f"{place}.name") or "").upper()
        value = fields.text(variable.get("value"), f"{place}.value", most=2**20)
        # A value that comes from elsewhere cannot be read here, so it counts as the worst.
        unknown = variable.get("valueFrom") is not None or (value is not None and "$(" in value)
        if name in _DEVICE_LISTS and (unknown or (value or "").strip().lower() not in _NO_DEVICES):
            yield HostAccess(path=place, kind="gpu_without_request")
    for place, mount in fields.items(container, "volumeMounts", path):
        target = posixpath.normpath(fields.text(mount.get("mountPath"), f"{place}.mountPath") or "")
        if target == _VOLUME_LIST or target.startswith(_VOLUME_LIST + "/"):
            yield HostAccess(path=place, kind="gpu_without_request")


def _wants_gpus(container: dict[str, Any], path: str) -> bool:
    """Whether a container's image or variables say that it computes on GPUs."""
    names = [
        fields.text(variable.get("name"), f"{place}.name") or "" for place, variable in fields.items(container, "env", path)
    ]
    image = fields.text(container.get("image"), f"{path}.image") or ""
    return bool(_GPU_IMAGES.search(image)) or any(name.upper().startswith(_GPU_VARIABLES) for name in names)


def _unread_variables(container: dict[str, Any], path: str, runtime: str) -> Iterator[HostAccess]:
    """`envFrom` that may bring in a list of devices: the ConfigMap or Secret behind it cannot be read here.

    Nearly every program uses `envFrom`, so one without a prefix counts under a GPU runtime only (`runtime`, or ""), and one
    with a prefix where such a variable begins with it. `env` wins over `envFrom`: what is stated there cannot come from elsewhere.
    """
    stated = {fields.text(each.get("name"), f"{place}.name") or "" for place, each in fields.items(container, "env", path)}
    read = {name for name in _DEVICE_LISTS if name.partition("_")[0].lower() in runtime.lower()} or _DEVICE_LISTS
    for place, source in fields.items(container, "envFrom", path):
        prefix = fields.text(source.get("prefix"), f"{place}.prefix") or ""
        open_names = [name for name in (_DEVICE_LISTS if prefix else read) - stated if name.startswith(prefix)]
        if open_names and (prefix or runtime):
            yield HostAccess(path=place, kind="gpu_without_request")
