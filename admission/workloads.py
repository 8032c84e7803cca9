"""Which kinds hold pods, where their pod templates are, and how many pods they run.

One row of `WORKLOADS` is one kind; a new kind is a new row and its test. A kind that is not here is unknown: the door denies
it when an accelerator's name stands anywhere in it (`admission.accelerators.mentioned`).

A kind whose number of pods has no bound that the object states is charged as unbounded, which is a BadInput when a pod of it
holds accelerators: a DaemonSet (one pod per node, and nodes come and go) and a CronJob whose runs may overlap
(`concurrencyPolicy: Allow`, Kubernetes' default).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from admission import fields
from admission.charge import Charge, charge
from core.errors import BadInput

UNBOUNDED = -1


@dataclass(frozen=True, slots=True)
class Workload:
    """`template`: the path to the object that holds `metadata` and `spec` of the pod; `pods`: how many run at once.

    `why_unbounded` is the advice given when `pods` answers UNBOUNDED for a pod that holds accelerators.
    """

    template: tuple[str, ...]
    pods: Callable[[dict[str, Any]], int]
    why_unbounded: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A pod template that was found. `path` is the path of its spec in the object."""

    metadata: dict[str, Any]
    spec: dict[str, Any]
    path: str
    metadata_path: str


def _one(_object: dict[str, Any]) -> int:
    return 1


def _replicas(found: dict[str, Any]) -> int:
    return fields.count(fields.mapping(found.get("spec"), "spec").get("replicas"), "spec.replicas", default=1)


def _unbounded(_object: dict[str, Any]) -> int:
    return UNBOUNDED


def _job_spec(spec: dict[str, Any], where: str) -> int:
    """The Job controller runs `parallelism` pods, never more than `completions` where that is stated."""
    if fields.flag(spec.get("suspend"), f"{where}.suspend"):
        return 0
    parallel = fields.count(spec.get("parallelism"), f"{where}.parallelism", default=1)
    return min(parallel, fields.count(spec.get("completions"), f"{where}.completions", default=parallel))


def _job(found: dict[str, Any]) -> int:
    return _job_spec(fields.mapping(found.get("spec"), "spec"), "spec")


def _cron_job(found: dict[str, Any]) -> int:
    """One run at a time under Forbid and Replace; under Allow runs may overlap without a bound."""
    spec = fields.mapping(found.get("spec"), "spec")
    if fields.flag(spec.get("suspend"), "spec.suspend"):
        return 0
    template = fields.mapping(spec.get("jobTemplate"), "spec.jobTemplate")
    pods = _job_spec(fields.mapping(template.get("spec"), "spec.jobTemplate.spec"), "spec.jobTemplate.spec")
    policy = fields.text(spec.get("concurrencyPolicy"), "spec.concurrencyPolicy")
    return pods if policy in ("Forbid", "Replace") or not pods else UNBOUNDED


_IN_TEMPLATE = ("spec", "template")
WORKLOADS: Mapping[tuple[str, str], Workload] = {
    ("", "Pod"): Workload((), _one),
    ("", "ReplicationController"): Workload(_IN_TEMPLATE, _replicas),
    ("apps", "Deployment"): Workload(_IN_TEMPLATE, _replicas),
    ("apps", "StatefulSet"): Workload(_IN_TEMPLATE, _replicas),
    ("apps", "ReplicaSet"): Workload(_IN_TEMPLATE, _replicas),
    ("apps", "DaemonSet"): Workload(
        _IN_TEMPLATE,
        _unbounded,
        "a DaemonSet runs one pod on every node, so its GPUs have no bound; use a Deployment or StatefulSet",
    ),
    ("batch", "Job"): Workload(_IN_TEMPLATE, _job),
    ("batch", "CronJob"): Workload(
        ("spec", "jobTemplate", "spec", "template"),
        _cron_job,
        "its runs may overlap, so its GPUs have no bound; set spec.concurrencyPolicy to Forbid or Replace",
    ),
}


def group_of(found: dict[str, Any]) -> str:
    """The API group in an object's own `apiVersion` ("" for the core group)."""
    group, slash, _ = fields.needed(found.get("apiVersion"), "apiVersion").partition("/")
    return group if slash else ""


def find(found: dict[str, Any]) -> Workload | None:
    """The row for an object's kind; None for a kind that is not known."""
    return WORKLOADS.get((group_of(found), fields.needed(found.get("kind"), "kind")))


def template_of(found: dict[str, Any], workload: Workload) -> Template:
    """The pod template of an object of a known kind. BadInput when it is not there."""
    here, where = found, ""
    for part in workload.template:
        where = f"{where}.{part}" if where else part
        here = fields.mapping(here.get(part), where)
    path = f"{where}.spec" if where else "spec"
    spec = here.get("spec")
    if not isinstance(spec, dict):
        raise BadInput(f"expected a pod's spec, found {fields.kind_of(spec)}", where=path)
    metadata_path = f"{where}.metadata" if where else "metadata"
    return Template(fields.mapping(here.get("metadata"), metadata_path), fields.mapping(spec, path), path, metadata_path)


def charge_pod(found: dict[str, Any], table: Mapping[str, int], claims: Sequence[Any] = ()) -> Charge:
    """What one pod of an object of a known kind holds."""
    workload = find(found)
    if workload is None:
        raise BadInput("is not a kind whose pods can be counted", where=f"kind {str(found.get('kind'))[:80]}")
    template = template_of(found, workload)
    return charge(template.spec, table, claims, where=template.path)


def charge_object(object: Any, table: Mapping[str, int], claims: Sequence[Any] = ()) -> Charge:
    """What the whole object holds: its pods times what one of them holds.

    Raises BadInput for an unknown kind (never a silent zero), for what `charge` refuses, and for accelerators in a kind
    whose number of pods has no bound. Zero replicas or `suspend: true` hold nothing now; the UPDATE that grows them is
    charged then. A rolling update's surge is not counted: the charge is the steady state.
    """
    found = fields.mapping(object, "object")
    each = charge_pod(found, table, claims)
    workload = find(found)
    pods = workload.pods(found) if workload else UNBOUNDED
    if pods == UNBOUNDED:
        if each.gpu_shares or each.resources:
            raise BadInput(workload.why_unbounded if workload else "unknown kind", where=f"kind {found.get('kind')}")
        return each
    return each.times(pods)
