"""KubeRay (ray.io/v1): a head pod, and groups of workers which Ray's autoscaler may grow to `maxReplicas`."""

from __future__ import annotations

from admission.rows import (
    DEFAULTED,
    UNBOUNDED,
    Count,
    Part,
    Rows,
    Spot,
    Workload,
    in_containers,
    in_template,
    one,
    unless,
)

_NO_MAXIMUM = "Ray's autoscaler is on and the group states no maxReplicas, so its GPUs have no bound; set maxReplicas"


def _workers(cluster: str) -> Count:
    """`GetWorkerGroupDesiredReplicas`: `replicas` held between the minimum and the maximum, each of `numOfHosts` pods.

    The CRD fills an absent `maxReplicas` with 2147483647 before any webhook sees it. With the autoscaler on that is no bound;
    with it off the group runs its `replicas`.
    """
    group = f"{cluster}.workerGroupSpecs[*]"

    def count(spot: Spot) -> int:
        if spot.flag(f"{group}.suspend"):
            return 0
        # A group of zero hosts is not valid; it is read as one host.
        hosts = max(spot.count(f"{group}.numOfHosts", 1), 1)
        most = spot.count(f"{group}.maxReplicas", DEFAULTED)
        if spot.flag(f"{cluster}.enableInTreeAutoscaling"):
            return UNBOUNDED if most == DEFAULTED else most * hosts
        least = spot.count(f"{group}.minReplicas", 0)
        return min(max(spot.count(f"{group}.replicas", least), least), most) * hosts

    return count


def _cluster(cluster: str, *, optional: bool) -> tuple[Part, ...]:
    """`autoscalerOptions.resources` are those of a container that joins the head pod."""

    def autoscaler(options: dict[str, object], _where: str) -> dict[str, object]:
        return {"name": "autoscaler", "resources": options.get("resources")}

    return (
        in_template(f"{cluster}.headGroupSpec.template", unless("spec.suspend", one), optional=optional),
        in_containers(f"{cluster}.autoscalerOptions", unless("spec.suspend", one), autoscaler),
        in_template(f"{cluster}.workerGroupSpecs[*].template", unless("spec.suspend", _workers(cluster)), why=_NO_MAXIMUM),
    )


ROWS: Rows = {
    ("ray.io", "RayCluster"): Workload(_cluster("spec", optional=False)),
    # With a clusterSelector the job runs on a cluster that is counted itself. The submitter's pod runs beside the cluster
    # (`K8sJobMode`); in other modes it is not made, and is counted all the same. A retry replaces the cluster.
    ("ray.io", "RayJob"): Workload(
        (*_cluster("spec.rayClusterSpec", optional=True), in_template("spec.submitterPodTemplate", unless("spec.suspend", one)))
    ),
    # An upgrade runs a second cluster until the new one serves: surge, which is not counted.
    ("ray.io", "RayService"): Workload(_cluster("spec.rayClusterConfig", optional=True)),
}
