"""Operators that make the pods of inference servers from fields of their own: NVIDIA NIM and Dynamo, the vLLM production stack."""

from __future__ import annotations

from typing import Any

from admission import fields
from admission.rows import (
    UNBOUNDED,
    Count,
    Part,
    Rows,
    Scale,
    Spot,
    Template,
    Workload,
    below,
    ceiling,
    from_spec,
    in_template,
    most,
    number,
    times,
    when,
)
from core.errors import BadInput

NVIDIA = "nvidia.com/gpu"
NO_MAXIMUM = "its autoscaler states no maximum, so its GPUs have no bound; set the maximum"


def _counted(resources: dict[str, Any], where: str) -> tuple[dict[str, Any], str | None]:
    """`{gpu: "1", gpuType: NAME}`, as two of these APIs write it, in Kubernetes' own words; the name that was meant."""
    found = {name: value for name, value in resources.items() if name in ("cpu", "memory")}
    found |= fields.mapping(resources.get("custom"), f"{where}.custom")
    amount = resources.get("gpu")
    if amount in (None, ""):
        return found, None
    name = fields.text(resources.get("gpuType"), f"{where}.gpuType") or NVIDIA
    return {**found, name: amount}, name


def _nim_replicas(spec: str) -> Count:
    """`scale.enabled` hands the number to an autoscaler. On KServe in Knative mode nothing else bounds it."""

    def count(spot: Spot) -> int:
        if spot.flag(f"{spec}.scale.enabled"):
            return most(ceiling(f"{spec}.scale.hpa.maxReplicas"), number(f"{spec}.scale.hpa.minReplicas"))(spot)
        annotations = fields.mapping(*spot.find(f"{spec}.annotations"))
        raw = annotations.get("serving.kserve.io/deploymentMode") in ("RawDeployment", "Standard")
        if spot.text(f"{spec}.inferencePlatform") == "kserve" and not raw:
            return UNBOUNDED
        return spot.count(f"{spec}.replicas", 1)

    return count


def _nim_nodes(spec: str) -> Count:
    """A group of `multiNode.parallelism.pipeline` pods (`multiNode.size` in the first versions)."""
    multi = f"{spec}.multiNode"
    return most(number(f"{multi}.parallelism.pipeline"), number(f"{multi}.size"), lambda _: 1)


def _nim(spec: str, *, unless_off: str | None = None) -> Part:
    """apps.nvidia.com/v1alpha1 NIMServiceSpec, read as `addGPUResources` of k8s-nim-operator does.

    GPUs that `resources` states are kept. Without them the operator gives each pod of a group its tensor parallelism
    (`gpusPerPod` in the first versions), and any other pod what the cached model's profile says, which is not in this object.
    """

    def read(spot: Spot, path: str) -> Template | None:
        value, where = spot.find(path)
        if value is None:
            return None
        found = fields.mapping(value, where)
        resources = fields.mapping(found.get("resources"), f"{where}.resources")
        container: dict[str, Any] = {"name": "nim", "resources": resources, "env": found.get("env")}
        image = _image(found.get("image"), f"{where}.image")
        if image:
            container["image"] = image
        pod: dict[str, Any] = {"containers": [container], "runtimeClassName": found.get("runtimeClassName") or None}
        claims, made = _nim_claims(found, where)
        if claims:
            pod["resourceClaims"] = claims
        elif not _states_devices(resources, where):
            container["resources"] = {"limits": {NVIDIA: _nim_group_gpus(spot, path)}}
        return from_spec(spot, pod, where, devices=made, covers=below(where, "resources", "draResources"))

    count = times(_nim_replicas(spec), _nim_nodes(spec))
    if unless_off is not None:
        inner = count

        def count(spot: Spot) -> int:
            off = spot.present(unless_off) and not spot.flag(unless_off)
            return 0 if off else inner(spot)

    return Part(spec, count, read, NO_MAXIMUM)


def _nim_group_gpus(spot: Spot, spec: str) -> int:
    for path in (f"{spec}.multiNode.parallelism.tensor", f"{spec}.multiNode.gpusPerPod"):
        if spot.present(path):
            return spot.count(path, 1)
    if spot.present(f"{spec}.multiNode") and not spot.present(f"{spec}.multiNode.parallelism"):
        return 1
    raise BadInput(
        "its operator adds the GPUs of the model's profile, which this object does not show; state them in resources.limits",
        where=f"{spot.find(spec)[1]}.resources",
    )


def _states_devices(resources: dict[str, Any], where: str) -> bool:
    """Whether any extended resource is asked for: those that have a domain in their name."""
    return any(
        "/" in name
        for kind in ("limits", "requests")
        for name in fields.mapping(resources.get(kind), f"{where}.resources.{kind}")
    )


def _nim_claims(found: dict[str, Any], where: str) -> tuple[list[dict[str, Any]], tuple[dict[str, Any], ...]]:
    """`draResources`: claims by name, by template, or made by the operator from `claimCreationSpec` as a template of its own."""
    claims: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []
    for path, item in fields.items(found, "draResources", where):
        claim: dict[str, Any] = {"name": f"claim-{len(claims)}"}
        creation = item.get("claimCreationSpec")
        if creation is not None:
            template = f"#{path}.claimCreationSpec"
            made.append(_nim_template(template, fields.mapping(creation, template[1:]), template[1:]))
            claim["resourceClaimTemplateName"] = template
        else:
            claim |= {key: item[key] for key in ("resourceClaimName", "resourceClaimTemplateName") if item.get(key) is not None}
        claims.append(claim)
    return claims, tuple(made)


def _nim_template(name: str, creation: dict[str, Any], where: str) -> dict[str, Any]:
    """The ResourceClaimTemplate that the operator makes; its defaults are one device of gpu.nvidia.com."""
    requests = [
        {
            "name": fields.text(device.get("name"), f"{path}.name") or f"device-{index}",
            "exactly": {
                "deviceClassName": fields.text(device.get("deviceClassName"), f"{path}.deviceClassName") or "gpu.nvidia.com",
                "allocationMode": "ExactCount",
                "count": fields.count(device.get("count"), f"{path}.count", default=1),
            },
        }
        for index, (path, device) in enumerate(fields.items(creation, "devices", where))
    ]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": {"devices": {"requests": requests}}},
    }


def _image(value: Any, where: str) -> str | None:
    """`{repository, tag}` (NIM) as one reference; None where it is not text, which no API server takes."""
    image = fields.mapping(value, where)
    repository, tag = image.get("repository"), image.get("tag")
    return f"{repository}:{tag}" if isinstance(repository, str) and isinstance(tag, str) and repository and tag else None


def _vllm(path: str, count: Count) -> Part:
    """production-stack.vllm.ai/v1alpha1 ResourceRequirements: `gpu` devices of the name in `gpuType`, nvidia.com/gpu without one."""

    def read(spot: Spot, place: str) -> Template | None:
        value, where = spot.find(place)
        if value is None:
            return None
        amounts, name = _counted(fields.mapping(value, where), where)
        pod = {"containers": [{"name": "vllm", "resources": {"limits": amounts}}]}
        uri = spot.text("spec.model.modelURL")
        sources = (("spec.model.modelURL", uri),) if uri and "://" in uri else ()
        return from_spec(spot, pod, where, named=(name,) if name else (), sources=sources)

    return Part(path, count, read, NO_MAXIMUM)


_VLLM = when(
    "spec.autoscalingConfig.enabled",
    most(ceiling("spec.autoscalingConfig.maxReplicas"), number("spec.deploymentConfig.replicas")),
    most(number("spec.deploymentConfig.replicas"), number("spec.replicas", 0)),
)


def _dynamo_replicas(shared: str) -> Count:
    """`autoscaling` is ignored by newer versions of the operator and obeyed by older ones, so it counts. A group has `nodeCount` pods,
    2 where `multinode` does not say."""

    def count(spot: Spot) -> int:
        replicas = number(f"{shared}.replicas")
        if spot.flag(f"{shared}.autoscaling.enabled"):
            replicas = most(replicas, ceiling(f"{shared}.autoscaling.maxReplicas"))
        nodes = spot.count(f"{shared}.multinode.nodeCount", 2) if spot.present(f"{shared}.multinode") else 1
        return times(replicas, lambda _: nodes)(spot)

    return count


def _dynamo(shared: str) -> tuple[Part, ...]:
    """nvidia.com/v1alpha1 DynamoComponentDeploymentSharedSpec: `resources` in words of its own, and `extraPodSpec`, a PodSpec whose
    `mainContainer` is laid over the main container. v1beta1 has a `podTemplate` instead."""

    def read(spot: Spot, path: str) -> Template | None:
        value, where = spot.find(path)
        if value is None:
            return None
        found = fields.mapping(value, where)
        extra = fields.mapping(found.get("extraPodSpec"), f"{where}.extraPodSpec")
        main = fields.mapping(extra.get("mainContainer"), f"{where}.extraPodSpec.mainContainer")
        own = fields.mapping(main.get("resources"), f"{where}.extraPodSpec.mainContainer.resources")
        stated = fields.mapping(found.get("resources"), f"{where}.resources")
        merged: dict[str, Any] = {}
        named: list[str] = []
        for kind in ("limits", "requests"):
            amounts, name = _counted(fields.mapping(stated.get(kind), f"{where}.resources.{kind}"), f"{where}.resources.{kind}")
            named += [name] if name else []
            merged[kind] = {**amounts, **fields.mapping(own.get(kind), f"{where}.extraPodSpec.mainContainer.resources.{kind}")}
        others = fields.sequence(extra.get("containers"), f"{where}.extraPodSpec.containers")
        pod = {**extra, "containers": [{"name": "main", **main, "resources": merged}, *others]}
        covers = below(where, "resources", "extraPodSpec", "podTemplate")
        return from_spec(spot, pod, where, named=tuple(named), covers=covers)

    count = _dynamo_replicas(shared)
    return (Part(shared, count, read, NO_MAXIMUM), in_template(f"{shared}.podTemplate", count, why=NO_MAXIMUM))


ROWS: Rows = {
    ("apps.nvidia.com", "NIMService"): Workload((_nim("spec"),), Scale("nimservices", "spec.replicas")),
    ("apps.nvidia.com", "NIMPipeline"): Workload((_nim("spec.services[*].spec", unless_off="spec.services[*].enabled"),)),
    ("production-stack.vllm.ai", "VLLMRuntime"): Workload(
        (
            _vllm("spec.deploymentConfig.resources", _VLLM),
            _vllm("spec.deploymentConfig.sidecarConfig.resources", _VLLM),
            _vllm("spec.resources", _VLLM),
        ),
        Scale("vllmruntimes", "spec.deploymentConfig.replicas"),
    ),
    ("production-stack.vllm.ai", "VLLMRouter"): Workload((_vllm("spec.resources", number("spec.replicas")),)),
    ("production-stack.vllm.ai", "CacheServer"): Workload((_vllm("spec.resources", number("spec.replicas")),)),
    ("nvidia.com", "DynamoGraphDeployment"): Workload((*_dynamo("spec.services[*]"), *_dynamo("spec.components[*]"))),
    ("nvidia.com", "DynamoComponentDeployment"): Workload(
        _dynamo("spec"), Scale("dynamocomponentdeployments", "spec.replicas")
    ),
}
