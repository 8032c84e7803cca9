"""Serving: KServe, Knative, Seldon, KAITO."""

from __future__ import annotations

from typing import Any

from admission import fields
from admission.kinds import inference
from admission.rows import (
    POD_FIELDS,
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
    in_containers,
    in_spec,
    in_template,
    most,
    number,
    unbounded,
)
from core.errors import BadInput

MODE = "serving.kserve.io/deploymentMode"
RAW = frozenset({"RawDeployment", "Standard"})
_MAX_SCALE = ("autoscaling.knative.dev/max-scale", "autoscaling.knative.dev/maxScale")
_FLOORS = (
    "autoscaling.knative.dev/min-scale",
    "autoscaling.knative.dev/minScale",
    "autoscaling.knative.dev/initial-scale",
    "autoscaling.knative.dev/initialScale",
)
_FRAMEWORKS = (
    "model",
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
)
_EXPLAINERS = ("art", "alibi", "aix")
_TAKEN_IN = "other objects take these GPUs in without showing them; state the GPUs in the object that uses this one"
_NO_SCALE = (
    "Knative scales it without a bound, or keeps an earlier revision that this object does not show; "
    "set the maximum (maxReplicas, or the annotation autoscaling.knative.dev/max-scale) and send all traffic to the latest revision"
)


def _annotated(annotations: Any, where: str, names: tuple[str, ...]) -> list[int]:
    """The numbers that Knative's annotations hold. BadInput for one that is not a number (Knative refuses it too)."""
    found = []
    for name, value in fields.mapping(annotations, where).items():
        if name in names:
            text = fields.text(value, f"{where}[{name}]") or ""
            if not text.isascii() or not text.isdigit() or len(text) > 9:
                raise BadInput("expected a whole number as text", where=f"{where}[{name}]")
            found.append(int(text))
    return found


def knative(path: str) -> Count:
    """A revision's pods: max-scale, at least its floors. 0, like nothing stated, means no bound (knative.dev/serving, autoscaling)."""

    def count(spot: Spot) -> int:
        annotations, where = spot.find(path)
        ceilings = _annotated(annotations, where, _MAX_SCALE)
        if not ceilings or 0 in ceilings:
            return UNBOUNDED
        return max(*ceilings, *_annotated(annotations, where, _FLOORS), 1)

    return count


def _latest_only(count: Count) -> Count:
    """A route that names revisions keeps pods of earlier ones, whose templates stand in other objects."""

    def counted(spot: Spot) -> int:
        for _, target in fields.items(spot.mapping("spec"), "traffic", "spec"):
            if target.get("revisionName"):
                return UNBOUNDED
        return count(spot)

    return counted


def _component(component: str) -> Count:
    """serving.kserve.io/v1beta1 ComponentExtensionSpec. Which mode rules where the annotation is absent is a setting of the
    cluster, so the mode without a bound (Knative) is assumed. KServe drops a max-scale annotation of the object itself
    (ServiceAnnotationDisallowedList); the component's own annotations pass. A canary keeps the earlier revision.
    """

    def count(spot: Spot) -> int:
        least = spot.count(f"{component}.minReplicas", 1)
        largest = spot.count(f"{component}.maxReplicas", 0)
        mode = fields.mapping(*spot.find("metadata.annotations")).get(MODE)
        if mode in RAW:
            return max(least, largest, 1)
        if spot.count(f"{component}.canaryTrafficPercent", 100) != 100:
            return UNBOUNDED
        annotations, where = spot.find(f"{component}.annotations")
        ceilings = _annotated(annotations, where, _MAX_SCALE)
        ceilings += [largest] if largest else []
        if not ceilings or 0 in ceilings:
            return UNBOUNDED
        return max(*ceilings, *_annotated(annotations, where, _FLOORS), least, 1)

    return count


def _kserve(component: str, inline: tuple[str, ...]) -> Part:
    """A component is a PodSpec with, beside it, a model server as an inline container (PredictorExtensionSpec)."""

    def read(spot: Spot, path: str) -> Template | None:
        value, where = spot.find(path)
        if value is None:
            return None
        found = fields.mapping(value, where)
        containers = list(fields.sequence(found.get("containers"), f"{where}.containers"))
        sources = []
        for name in inline:
            server = found.get(name)
            if server is None:
                continue
            server = fields.mapping(server, f"{where}.{name}")
            containers.append({"name": name, **server})
            uri = fields.text(server.get("storageUri"), f"{where}.{name}.storageUri")
            sources += [(f"{where}.{name}.storageUri", uri)] if uri else []
        for index, container in enumerate(containers):
            containers[index] = {"name": "kserve-container", **fields.mapping(container, f"{where}.containers[{index}]")}
        covers = below(where, *POD_FIELDS, *inline)
        return from_spec(spot, {**found, "containers": containers}, where, sources=tuple(sources), covers=covers)

    return Part(component, _component(component), read, _NO_SCALE)


def _one_node(spot: Spot) -> None:
    """Multi-node serving computes its workers from sizes and GPUs of the ServingRuntime, which this object does not show."""
    if spot.present("spec.predictor.workerSpec"):
        raise BadInput(
            "a multi-node InferenceService takes its workers' GPUs from a ServingRuntime, so they cannot be counted; "
            "use an LLMInferenceService or a LeaderWorkerSet",
            where="spec.predictor.workerSpec",
        )


def _serving_runtime() -> Workload:
    """What InferenceServices take their containers from. How many of them will is unknown, and they do not show what they took."""
    return Workload(
        (in_spec("spec", unbounded, inline=True, why=_TAKEN_IN), in_spec("spec.workerSpec", unbounded, why=_TAKEN_IN))
    )


def _llm_replicas(group: str) -> Count:
    """Absent, it is 1, unless `baseRefs` name configurations that may say otherwise. `scaling` grows to its maximum."""

    def count(spot: Spot) -> int:
        if spot.present(f"{group}.scaling"):
            return most(ceiling(f"{group}.scaling.maxReplicas"), number(f"{group}.replicas", 0))(spot)
        if not spot.present(f"{group}.replicas") and spot.find("spec.baseRefs")[0]:
            return UNBOUNDED
        return spot.count(f"{group}.replicas", 1)

    return count


def _llm_size(group: str, spot: Spot) -> int:
    """`ParallelismSpec.GetSize`: data / dataLocal, or pipeline; a LeaderWorkerSet without a size has one pod."""
    data, local = (spot.count(f"{group}.parallelism.{name}", 0) for name in ("data", "dataLocal"))
    size = max(data, 1) // max(local, 1) if data or local else spot.count(f"{group}.parallelism.pipeline", 1)
    return max(size, 1)


def _llm(group: str) -> tuple[Part, ...]:
    """serving.kserve.io WorkloadSpec: `template` alone is a Deployment; with `worker` it is the leader of a LeaderWorkerSet."""
    replicas = _llm_replicas(group)

    def workers(spot: Spot) -> int:
        each = replicas(spot)
        if each == UNBOUNDED or (spot.find("spec.baseRefs")[0] and not spot.present(f"{group}.parallelism")):
            return UNBOUNDED
        return each * (_llm_size(group, spot) - (1 if spot.present(f"{group}.template") else 0))

    why = "baseRefs may set what is absent here, so its GPUs have no bound; set replicas, parallelism and scaling.maxReplicas"
    return (_llm_pods(f"{group}.template", replicas, why), _llm_pods(f"{group}.worker", workers, why))


def _llm_pods(path: str, count: Count, why: str) -> Part:
    def read(spot: Spot, place: str) -> Template | None:
        value, where = spot.find(place)
        if value is None:
            return None
        uri = spot.text("spec.model.uri")
        return from_spec(spot, fields.mapping(value, where), where, sources=(("spec.model.uri", uri),) if uri else ())

    return Part(path, count, read, why)


def _seldon_replicas(own: str) -> Count:
    """SeldonDeployment: the nearest `replicas` that is stated, 1 without any; an autoscaler's maximum where there is one."""

    def count(spot: Spot) -> int:
        places = [f"{own}.replicas", "spec.predictors[*].replicas", "spec.replicas"]
        found = next((spot.count(place, 1) for place in places if spot.present(place)), 1)
        if spot.present(f"{own}.hpaSpec"):
            found = most(lambda _: found, ceiling(f"{own}.hpaSpec.maxReplicas"))(spot)
        if spot.present(f"{own}.kedaSpec"):
            # KEDA's default maximum is 100 (keda.sh ScaledObject, maxReplicaCount).
            found = most(lambda _: found, number(f"{own}.kedaSpec.maxReplicaCount", 100))(spot)
        return found

    return count


def _container(found: dict[str, Any], _where: str) -> dict[str, Any]:
    return {"name": "main", **found}


def _own_template(spot: Spot) -> None:
    """A preset's GPUs come from the model and the machine it is put on, by tables inside KAITO."""
    for field in ("inference.preset", "tuning.preset"):
        if spot.present(field):
            raise BadInput(
                "a preset's GPUs are chosen by KAITO and cannot be counted from this object; use inference.template",
                where=field,
            )


_KNATIVE = (in_template("spec.template", _latest_only(knative("spec.template.metadata.annotations")), why=_NO_SCALE),)

ROWS: Rows = {
    ("serving.kserve.io", "InferenceService"): Workload(
        (
            _kserve("spec.predictor", _FRAMEWORKS),
            _kserve("spec.transformer", ()),
            _kserve("spec.explainer", _EXPLAINERS),
        ),
        check=_one_node,
    ),
    ("serving.kserve.io", "LLMInferenceService"): Workload(
        (
            *_llm("spec"),
            *_llm("spec.prefill"),
            in_spec("spec.router.scheduler.template", number("spec.router.scheduler.replicas")),
        ),
        Scale("llminferenceservices", "spec.replicas"),
    ),
    ("serving.kserve.io", "LLMInferenceServiceConfig"): Workload(
        tuple(
            in_spec(path, unbounded, why=_TAKEN_IN)
            for path in (
                "spec.template",
                "spec.worker",
                "spec.prefill.template",
                "spec.prefill.worker",
                "spec.router.scheduler.template",
            )
        )
    ),
    ("serving.kserve.io", "ServingRuntime"): _serving_runtime(),
    ("serving.kserve.io", "ClusterServingRuntime"): _serving_runtime(),
    ("serving.knative.dev", "Service"): Workload(_KNATIVE),
    ("serving.knative.dev", "Configuration"): Workload(_KNATIVE),
    ("serving.knative.dev", "Revision"): Workload((in_template("", knative("metadata.annotations"), why=_NO_SCALE),)),
    # machinelearning.seldon.io/v1. The orchestrator may be a container of the predictor's pods or a pod of its own.
    ("machinelearning.seldon.io", "SeldonDeployment"): Workload(
        (
            in_template(
                "spec.predictors[*].componentSpecs[*]",
                _seldon_replicas("spec.predictors[*].componentSpecs[*]"),
                why="its autoscaler states no maximum; set hpaSpec.maxReplicas",
            ),
            in_containers("spec.predictors[*].svcOrchSpec", _seldon_replicas("spec.predictors[*]"), _container),
            in_containers(
                "spec.predictors[*].explainer.containerSpec", _seldon_replicas("spec.predictors[*].explainer"), _container
            ),
        ),
        Scale("seldondeployments", "spec.replicas"),
    ),
    # kaito.sh/v1beta1: `resource` and `inference` stand beside metadata, not in a spec. One pod of the template per node.
    ("kaito.sh", "Workspace"): Workload((in_template("inference.template", number("resource.count")),), check=_own_template),
    **inference.ROWS,
}
