"""Kubernetes' own kinds (k8s.io/api: core/v1, apps/v1, batch/v1, autoscaling/v2).

A DaemonSet runs one pod per node, and nodes come and go; a CronJob's runs may overlap (`concurrencyPolicy: Allow`, the default).
Neither has a bound, which is a refusal where a pod of it holds accelerators. A rolling update's surge is not counted: the
charge is the steady state.
"""

from __future__ import annotations

from admission.rows import UNBOUNDED, Rows, Scale, Spot, Workload, in_template, job, number, one, unbounded, unless

_OVERLAP = "its runs may overlap, so its GPUs have no bound; set spec.concurrencyPolicy to Forbid or Replace"


def one_at_a_time(count: int, policy: str | None) -> int:
    """One run at a time under Forbid and Replace; under Allow, the default, runs may overlap without a bound."""
    return count if policy in ("Forbid", "Replace") or not count else UNBOUNDED


def _cron_job(spot: Spot) -> int:
    running = unless("spec.jobTemplate.spec.suspend", job("spec.jobTemplate.spec"))
    return one_at_a_time(unless("spec.suspend", running)(spot), spot.text("spec.concurrencyPolicy"))


def _replicated(plural: str) -> Workload:
    part = in_template("spec.template", number("spec.replicas"), optional=False)
    return Workload((part,), Scale(plural, "spec.replicas"), exact=True)


PASSIVE = frozenset(
    {
        # Kubernetes' own records and limits. A ControllerRevision repeats the template of a DaemonSet or StatefulSet that was counted.
        ("", "Node"),
        ("", "ResourceQuota"),
        ("", "LimitRange"),
        ("", "Event"),
        ("events.k8s.io", "Event"),
        ("apps", "ControllerRevision"),
        # Queues' quotas, and the records by which a queue lets a counted workload start (kueue.x-k8s.io, scheduling.volcano.sh).
        ("kueue.x-k8s.io", "ClusterQueue"),
        ("kueue.x-k8s.io", "Cohort"),
        ("kueue.x-k8s.io", "ResourceFlavor"),
        ("kueue.x-k8s.io", "Workload"),
        ("kueue.x-k8s.io", "ProvisioningRequestConfig"),
        ("scheduling.volcano.sh", "Queue"),
        ("scheduling.volcano.sh", "PodGroup"),
        # Downloads a model by a Job with cpu and memory only, perhaps on a node with GPUs (k8s-nim-operator, NIMCacheSpec.Resources).
        ("apps.nvidia.com", "NIMCache"),
    }
)
"""Kinds that name accelerators as a matter of course and from which nothing ever makes a pod that holds one."""

ROWS: Rows = {
    ("", "Pod"): Workload((in_template("", one, optional=False),), exact=True),
    ("", "ReplicationController"): _replicated("replicationcontrollers"),
    ("apps", "Deployment"): _replicated("deployments"),
    ("apps", "StatefulSet"): _replicated("statefulsets"),
    ("apps", "ReplicaSet"): _replicated("replicasets"),
    ("apps", "DaemonSet"): Workload(
        (
            in_template(
                "spec.template",
                unbounded,
                optional=False,
                why="a DaemonSet runs one pod on every node, so its GPUs have no bound; use a Deployment or StatefulSet",
            ),
        ),
        exact=True,
    ),
    ("batch", "Job"): Workload(
        (in_template("spec.template", unless("spec.suspend", job("spec")), optional=False),),
        exact=True,
    ),
    ("batch", "CronJob"): Workload(
        (in_template("spec.jobTemplate.spec.template", _cron_job, optional=False, why=_OVERLAP),),
        exact=True,
    ),
}
