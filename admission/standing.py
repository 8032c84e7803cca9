"""What an object will hold after a request, given what it holds now. Pure; `ledger.py` writes it down.

The cases, each of which was a bypass somewhere (`tests/unit/admission/test_standing.py` has one test for each):

1. UPDATE replaces the object's own charge: it grows or gives back.
2. CREATE of a name that is charged already keeps the larger of the two: the API server may refuse the CREATE as
   AlreadyExists, and what runs must stay charged.
3. DELETE gives back only when the object is really going now. Finalizers, `propagationPolicy: Foreground` and a running pod's
   grace period keep it alive; the UPDATE that removes the last finalizer gives back, since no DELETE follows it.
   Orphaned pods go on running, so their owner's charge stays.
4. What one of the cluster's controllers made for an owner that is paid for holds nothing itself, nor does a claim (DRA) that it
   made for a pod, whose charge counts those devices already. A claimed owner from anybody
   else is charged: ownerReferences are text that everyone can write.
5. A Scale is charged to the object whose replicas it sets, by what the ledger holds for it (`scaled`).
6. An autoscaler is judged by the maximum to which it may grow its target (`grown`). That is not reserved: each of its steps is a
   Scale, charged when it is taken. So nothing escapes when the autoscaler comes before its target, or outlives a change of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from admission import decide, fields, workloads
from admission.charge import Charge
from admission.decide import Asked
from admission.review import Review
from core.inputs import AdmissionConfig
from core.names import ModelRef

SCALED = {
    (group, row.scale.plural): f"{kind}.{group}" if group else kind
    for (group, kind), row in workloads.WORKLOADS.items()
    if row.scale is not None
}
AUTOSCALERS = frozenset({("autoscaling", "HorizontalPodAutoscaler"), ("keda.sh", "ScaledObject")})
KEDA_MAXIMUM = 100
"""`maxReplicaCount` of a ScaledObject that does not state it (keda.sh/v1alpha1)."""
DEFAULT_GRACE = 30


@dataclass(frozen=True, slots=True)
class ObjectKey:
    namespace: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Holding:
    """What one object holds now."""

    tenant: str
    team: str
    shares: int
    pod_shares: int
    request_uid: str
    updated_at_unix: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """The ledger as one request found it: its team's account, its object's own holding, whether its owner is paid for.

    `owner_known`: whether the owner was admitted as a workload with accelerators or a model, so that it stands for its pods.
    """

    version: int
    used_shares: int
    own: Holding | None
    owner_paid: bool
    marked: bool
    owner_known: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What shall stand in the ledger. `after` is None when the object's row goes; `asked` is what the policy judges.

    `used` is what the team holds beside it, so that `used + asked` is the team's total once the change is made.
    """

    after: int | None
    pod_shares: int
    asked: int
    used: int
    mark: str | None


def key_of(review: Review) -> ObjectKey:
    """The row of the request's object: the same one for its subresources."""
    kind = f"{review.kind}.{review.group}" if review.group else review.kind
    if review.subresource == "scale":
        kind = SCALED.get((review.resource_group, review.resource), f"{review.resource}/scale")
    own = fields.text(review.metadata.get("uid"), "object.metadata.uid", most=128) or review.uid
    return ObjectKey(review.namespace, kind, review.name or f"#{own}"[:253])


def scaled(review: Review, held: Holding) -> Asked:
    """What the scaled object holds at the new number of replicas, each of which holds `held.pod_shares`; never less than those.

    Where an owner stands for the object the step is charged all the same: a Scale does not say on whose behalf it comes.
    """
    new, old = _replicas(review.object, "request.object"), _replicas(review.old_object, "request.oldObject")
    total = max(held.shares + (new - old) * held.pod_shares, new * held.pod_shares)
    return _grows(held.pod_shares, total, "spec.replicas")


def _replicas(scale: dict[str, Any] | None, where: str) -> int:
    spec = fields.mapping((scale or {}).get("spec"), f"{where}.spec")
    return fields.count(spec.get("replicas"), f"{where}.spec.replicas", default=0)


def _grows(each: int, total: int, path: str, *, judged_only: bool = False) -> Asked:
    return Asked(
        known_kind=True,
        accelerators_found=each > 0,
        each=Charge(gpu_shares=each),
        total=Charge(gpu_shares=total),
        pod_path=path,
        judged_only=judged_only,
    )


def target_of(review: Review) -> tuple[ObjectKey, int] | None:
    """The object whose replicas this autoscaler sets, and the most it may set; None for any other request."""
    kind = (review.group, review.kind)
    if kind not in AUTOSCALERS or review.subresource or review.operation not in ("CREATE", "UPDATE"):
        return None
    spec = fields.mapping(review.present.get("spec"), "spec")
    target = fields.mapping(spec.get("scaleTargetRef"), "spec.scaleTargetRef")
    keda = review.group == "keda.sh"
    what = fields.text(target.get("kind"), "spec.scaleTargetRef.kind") or "Deployment"
    version = fields.text(target.get("apiVersion"), "spec.scaleTargetRef.apiVersion") or ("apps/v1" if keda else "v1")
    name = fields.needed(target.get("name"), "spec.scaleTargetRef.name")
    field, default = ("maxReplicaCount", KEDA_MAXIMUM) if keda else ("maxReplicas", 1)
    most = fields.count(spec.get(field), f"spec.{field}", default=default)
    group = version.rpartition("/")[0]
    return ObjectKey(review.namespace, f"{what}.{group}" if group else what, name), most


def grown(held: Holding, most: int) -> Asked:
    """What the target would hold beyond what it holds now, at the autoscaler's maximum."""
    return _grows(held.pod_shares, max(most * held.pod_shares - held.shares, 0), "spec.scaleTargetRef", judged_only=True)


def change(review: Review, asked: Asked, standing: Standing, *, tenant: str, team: str, config: AdmissionConfig) -> Change:
    """The charge after the request."""
    own = standing.own
    here = own.shares if own and (own.tenant, own.team) == (tenant, team) else 0
    others = standing.used_shares - here
    each = asked.each.gpu_shares
    if going(review):
        return Change(None, 0, 0, max(others, 0), None)
    if review.operation in ("DELETE", "CONNECT") or decide.asks_nothing(review):
        held = own.shares if own else 0
        return Change(held if own else None, own.pod_shares if own else 0, 0, max(others + here, 0), None)
    paid = (standing.owner_paid or decide.made_for_pod(review)) and decide.by_controller(review, config)
    total = 0 if paid else asked.total.gpu_shares
    if asked.judged_only:
        return Change(None, 0, total, max(others, 0), None)
    after = total
    if review.operation == "CREATE" and own is not None and own.request_uid != review.uid:
        after = max(total, own.shares)
    uid = fields.text(review.metadata.get("uid"), "object.metadata.uid", most=128)
    # What makes pods with devices is marked, and what makes pods with a model: it stands for them (`covered`).
    maker = review.kind != "Pod" and (each > 0 or bool(decide.references(asked)))
    mark = uid if uid and maker else None
    needs_row = after > 0 or maker
    return Change(after if needs_row else None, each, total, max(others + after - total, 0), mark)


def runs(review: Review, asked: Asked, standing: Standing, config: AdmissionConfig) -> tuple[ModelRef, ...] | None:
    """The model versions that the object runs after the request: none once it is gone; None where nothing is said about it
    (another kind, a subresource, an object on its way out, what a controller made for an owner that stands for it)."""
    if (review.group, review.kind) not in workloads.WORKLOADS or review.subresource:
        return None
    if going(review):
        return ()
    if review.operation not in ("CREATE", "UPDATE") or decide.asks_nothing(review) or covered(review, standing, config):
        return None
    return tuple(decide.references(asked))


def covered(review: Review, standing: Standing, config: AdmissionConfig) -> bool:
    """Whether a controller made the object for an owner that was admitted, and that stands for it."""
    return standing.owner_known and decide.by_controller(review, config)


def going(review: Review) -> bool:
    """Whether the object is gone once this request is carried out."""
    if review.operation == "DELETE":
        old = review.old_object or {}
        options = review.options
        policy = fields.text(options.get("propagationPolicy"), "request.options.propagationPolicy")
        lasting = policy in ("Orphan", "Foreground") or fields.flag(
            options.get("orphanDependents"), "request.options.orphanDependents"
        )
        return not lasting and not _finalizers(old) and _pod_ends(review, old, options.get("gracePeriodSeconds"))
    if review.operation != "UPDATE" or review.metadata.get("deletionTimestamp") is None or _finalizers(review.present):
        return False
    grace = review.metadata.get("deletionGracePeriodSeconds")
    return "orphan" not in _finalizers(review.old_object or {}) and _pod_ends(review, review.present, grace)


def _pod_ends(review: Review, found: dict[str, Any], grace: Any) -> bool:
    """Whether a pod stops holding its devices now: it never ran, it has ended, or it is given no more time.

    A pod on a node goes on through its grace period, and the kubelet sends a last DELETE with a grace of 0.
    """
    if review.kind != "Pod" or review.group:
        return True
    spec = fields.mapping(found.get("spec"), "oldObject.spec")
    status = fields.mapping(found.get("status"), "oldObject.status")
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return True
    stated = grace if grace is not None else spec.get("terminationGracePeriodSeconds")
    return fields.count(stated, "gracePeriodSeconds", default=DEFAULT_GRACE) == 0


def _finalizers(found: dict[str, Any]) -> list[Any]:
    metadata = fields.mapping(found.get("metadata"), "oldObject.metadata")
    return fields.sequence(metadata.get("finalizers"), "oldObject.metadata.finalizers")
