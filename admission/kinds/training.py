"""Training and batch: JobSet, LeaderWorkerSet, Kubeflow, Volcano."""

from __future__ import annotations

from admission.rows import (
    Count,
    Rows,
    Scale,
    Spot,
    Workload,
    given,
    in_containers,
    in_template,
    job,
    most,
    number,
    one,
    stated,
    times,
    unbounded,
    unless,
    zero,
)

_TAKEN_IN = "other objects take these GPUs in without showing them; state the GPUs in the object that uses this one"


def _followers(leader: Count) -> Count:
    """A group of `size` pods is one leader and `size - 1` workers; without a leaderTemplate the leader is a worker too."""

    def count(spot: Spot) -> int:
        size = max(spot.count("spec.leaderWorkerTemplate.size", 1), 1)
        return spot.count("spec.replicas", 1) * (size - 1 + leader(spot))

    return count


def _replica_specs(field: str, *, scale: Scale | None = None) -> Workload:
    """kubeflow.org/v1 `ReplicaSpec` by role; `elasticPolicy.maxReplicas` is where an autoscaler takes the workers.

    An absent `replicas` is taken as 1 (MPIJob v2beta1 would run no worker then). v1 and v2beta1 both have `runPolicy.suspend`.
    """
    replicas = f"spec.{field}[*].replicas"

    def count(spot: Spot) -> int:
        elastic = spot.count("spec.elasticPolicy.maxReplicas", 0) if spot.items[0] == "Worker" else 0
        return max(spot.count(replicas, 1), elastic)

    return Workload((in_template(f"spec.{field}[*].template", unless("spec.runPolicy.suspend", count)),), scale)


def _train_node(trainer: dict[str, object], _where: str) -> dict[str, object]:
    return {
        "name": "node",
        "resources": trainer.get("resourcesPerNode"),
        **({"image": trainer["image"]} if trainer.get("image") else {}),
    }


def _training_runtime() -> Workload:
    """What TrainJobs take their templates from; it makes no pod itself, and a TrainJob does not show what it took."""
    return Workload((in_template("spec.template.spec.replicatedJobs[*].template.spec.template", unbounded, why=_TAKEN_IN),))


ROWS: Rows = {
    # jobset.x-k8s.io/v1alpha2. The controller overwrites the Jobs' own `suspend`, so only the JobSet's counts. Replicated jobs
    # that wait for others (`dependsOn`) are summed, as if all ran at once.
    ("jobset.x-k8s.io", "JobSet"): Workload(
        (
            in_template(
                "spec.replicatedJobs[*].template.spec.template",
                unless(
                    "spec.suspend",
                    times(number("spec.replicatedJobs[*].replicas"), job("spec.replicatedJobs[*].template.spec")),
                ),
            ),
        )
    ),
    # leaderworkerset.x-k8s.io/v1 LeaderWorkerTemplate. `maxSurge` groups of a rolling update are not counted (steady state).
    ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"): Workload(
        (
            in_template("spec.leaderWorkerTemplate.leaderTemplate", number("spec.replicas")),
            in_template(
                "spec.leaderWorkerTemplate.workerTemplate",
                _followers(given("spec.leaderWorkerTemplate.leaderTemplate", zero, one)),
                optional=False,
            ),
        ),
        Scale("leaderworkersets", "spec.replicas"),
    ),
    ("kubeflow.org", "PyTorchJob"): _replica_specs(
        "pytorchReplicaSpecs", scale=Scale("pytorchjobs", "spec.pytorchReplicaSpecs.Worker.replicas")
    ),
    ("kubeflow.org", "TFJob"): _replica_specs("tfReplicaSpecs", scale=Scale("tfjobs", "spec.tfReplicaSpecs.Worker.replicas")),
    ("kubeflow.org", "MPIJob"): _replica_specs(
        "mpiReplicaSpecs", scale=Scale("mpijobs", "spec.mpiReplicaSpecs.Worker.replicas")
    ),
    ("kubeflow.org", "XGBoostJob"): _replica_specs(
        "xgbReplicaSpecs", scale=Scale("xgboostjobs", "spec.xgbReplicaSpecs.Worker.replicas")
    ),
    ("kubeflow.org", "PaddleJob"): _replica_specs(
        "paddleReplicaSpecs", scale=Scale("paddlejobs", "spec.paddleReplicaSpecs.Worker.replicas")
    ),
    ("kubeflow.org", "JAXJob"): _replica_specs(
        "jaxReplicaSpecs", scale=Scale("jaxjobs", "spec.jaxReplicaSpecs.Worker.replicas")
    ),
    # trainer.kubeflow.org/v1alpha1 `Trainer`. What it leaves out comes from a runtime, which may hold no accelerators (below);
    # the number of nodes may come from there, so it must be stated beside accelerators.
    ("trainer.kubeflow.org", "TrainJob"): Workload(
        (
            in_containers(
                "spec.trainer",
                unless("spec.suspend", stated("spec.trainer.numNodes")),
                _train_node,
                why="the number of nodes would come from its runtime, which this object does not show; set spec.trainer.numNodes",
            ),
        )
    ),
    ("trainer.kubeflow.org", "TrainingRuntime"): _training_runtime(),
    ("trainer.kubeflow.org", "ClusterTrainingRuntime"): _training_runtime(),
    # keda.sh/v1alpha1: up to `maxReplicaCount` Jobs at once, 100 where it is not stated.
    ("keda.sh", "ScaledJob"): Workload(
        (
            in_template(
                "spec.jobTargetRef.template",
                times(most(number("spec.maxReplicaCount", 100), number("spec.minReplicaCount", 0)), job("spec.jobTargetRef")),
            ),
        )
    ),
    # batch.volcano.sh/v1alpha1 TaskSpec; absent `replicas` is taken as 1. `partitionPolicy` makes partitions × size pods.
    ("batch.volcano.sh", "Job"): Workload(
        (
            in_template(
                "spec.tasks[*].template",
                most(
                    number("spec.tasks[*].replicas"),
                    times(
                        number("spec.tasks[*].partitionPolicy.totalPartitions", 0),
                        number("spec.tasks[*].partitionPolicy.partitionSize", 0),
                    ),
                ),
            ),
        )
    ),
}
