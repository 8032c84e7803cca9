"""From a review and gathered facts to the input of a decision. Pure.

A workload is read into typed facts; what is not a workload is only searched for accelerators. A DELETE asks for nothing, so
its request holds nothing: an object that should never have been there can always be taken away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from admission import accelerators, fields, images, models, workloads
from admission import claims as dra
from admission.charge import Charge, of_devices
from admission.review import Review
from admission.rows import Template
from core.inputs import (
    AdmissionConfig,
    AdmissionFacts,
    AdmissionInput,
    AdmissionRequest,
    Container,
    HostAccess,
    ModelFact,
    ModelUse,
    PrincipalFact,
    QuotaFact,
    WeightsUse,
    mandatory,
)
from core.names import ModelRef

CLAIM_GROUP = "resource.k8s.io"
CLAIM_KINDS = frozenset({"ResourceClaim", "ResourceClaimTemplate"})
CONTROLLER_MANAGER = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the object of a review asks for, before any fact is known.

    `each`: what one more replica holds, or one pod of each sort where no more can be added; zero exactly when no pod holds devices.
    `total`: the whole object. Both are zero for what is not a workload. `judged_only`: nothing is reserved.
    """

    known_kind: bool
    accelerators_found: bool
    each: Charge = field(default_factory=Charge)
    total: Charge = field(default_factory=Charge)
    pod_path: str = "spec"
    containers: list[Container] = field(default_factory=list)
    models: list[ModelUse] = field(default_factory=list)
    weights: list[WeightsUse] = field(default_factory=list)
    host_access: list[HostAccess] = field(default_factory=list)
    judged_only: bool = False


def asked(review: Review, table: Mapping[str, int], claims: Sequence[Any] = ()) -> Asked:
    """What the review's object asks for. BadInput where it cannot be read or counted.

    `claims`: the ResourceClaims, templates and DeviceClasses that are known. A ResourceClaim is charged by itself, so what
    shares one is charged without it.
    """
    found = review.object
    if review.operation == "DELETE" or found is None or asks_nothing(review):
        return Asked(known_kind=True, accelerators_found=False)
    if review.group == CLAIM_GROUP and review.kind in CLAIM_KINDS:
        return _claim(review.kind, found, table, claims)
    workload = workloads.WORKLOADS.get((review.group, review.kind))
    if workload is None:
        return Asked(known_kind=False, accelerators_found=holds_accelerators(review.group, review.kind, found, table))
    tree = workloads.charge_tree(found, workload, table, claims)
    templates = [sort.template for sort in tree.sorts]
    access = [use for template, each in zip(templates, tree.each, strict=True) for use in _access(template, each, table)]
    each = workloads.charge_step(found, workload, tree) or workloads.together(tree.each)
    return Asked(
        known_kind=True,
        accelerators_found=bool(each.resources) or any(use.kind == "gpu_without_request" for use in access),
        each=each.own,
        total=tree.total.own,
        pod_path=templates[0].path if templates else "spec",
        containers=[container for template in templates for container in _containers(template)],
        models=list(dict.fromkeys(use for template in templates for use in models.models(template))),
        weights=list(dict.fromkeys(use for template in templates for use in models.weights(template))),
        host_access=access,
    )


def _claim(kind: str, found: dict[str, Any], table: Mapping[str, int], claims: Sequence[Any]) -> Asked:
    """A claim holds its devices from its creation on. A template holds none: each pod that names it is charged."""
    known = dra.read([item for item in claims if isinstance(item, dict) and item.get("kind") == "DeviceClass"])
    held = dra.of_claim(found, table, known) if kind == "ResourceClaim" else dra.of_template(found, table, known)
    return Asked(
        known_kind=True,
        accelerators_found=held.shares > 0,
        total=of_devices(held) if kind == "ResourceClaim" else Charge(),
        host_access=[HostAccess(path=path, kind="device_admin") for path in held.admin],
    )


def _access(template: Template, each: Charge, table: Mapping[str, int]) -> list[HostAccess]:
    asks = bool(each.resources)
    return accelerators.host_access(template.spec, template.metadata, template.path, has_request=asks, table=table)


def asks_nothing(review: Review) -> bool:
    """Whether this UPDATE leaves the spec alone, of an object that is being deleted or of a claim (DRA).

    What moves an object towards its end (a finalizer goes, say) asks for nothing more than a DELETE does; refused, it would keep
    what a policy no longer allows alive for ever. A claim's spec never changes: the scheduler and the drivers write its status,
    also of claims that are charged with their pods.
    """
    is_claim = review.group == CLAIM_GROUP and review.kind in CLAIM_KINDS
    if review.operation != "UPDATE" or not (is_claim or review.metadata.get("deletionTimestamp") is not None):
        return False
    return (review.object or {}).get("spec") == (review.old_object or {}).get("spec")


def holds_accelerators(group: str, kind: str, found: Mapping[str, Any], table: Mapping[str, int]) -> bool:
    """Whether an object of a kind without known pods could bring accelerators to somebody. A claim always could (DRA)."""
    if group == CLAIM_GROUP and kind in CLAIM_KINDS:
        return True
    return workloads.unknown_with_devices(group, kind, found, table)


def _containers(template: Template) -> list[Container]:
    """The containers with their images. Where the kind takes an image from elsewhere, its pods are judged when they are made."""
    found = []
    for path, container in accelerators.containers(template.spec, template.path):
        image = fields.text(container.get("image"), f"{path}.image")
        name = fields.needed(container.get("name"), f"{path}.name")
        if image or template.images_stated:
            found.append(Container(path=path, name=name, image=images.parse(image) if image else None))
    return found


def references(request: Asked) -> list[ModelRef]:
    """The model versions that the registry is asked for."""
    return list(dict.fromkeys(ModelRef(use.name, use.version) for use in request.models if use.name and use.version))


def principal(review: Review, *, ref: str, tenant: str, config: AdmissionConfig) -> PrincipalFact:
    """Who asks, as a reference. A service account's team is known where it acts inside its own namespace."""
    namespace = service_account_namespace(review.username)
    return PrincipalFact(
        ref=ref,
        kind="user" if namespace is None else "service_account",
        tenant=tenant,
        team=config.team if namespace is not None and namespace == review.namespace else None,
        namespace=namespace,
    )


def service_account_namespace(username: str) -> str | None:
    """NS of `system:serviceaccount:NS:NAME`; None for any other user name."""
    if not username.startswith(SERVICE_ACCOUNT):
        return None
    namespace, colon, name = username.removeprefix(SERVICE_ACCOUNT).partition(":")
    return namespace if colon and namespace and name and ":" not in name else None


def by_controller(review: Review, config: AdmissionConfig) -> bool:
    """Whether one of the cluster's own controllers asks (the service accounts of the configured namespaces).

    A controller manager without `--use-service-account-credentials` does everything under one name, which stands for
    kube-system's accounts, and so does the scheduler's.
    """
    if review.username in (CONTROLLER_MANAGER, SCHEDULER):
        return "kube-system" in config.controller_namespaces
    namespace = service_account_namespace(review.username)
    return namespace is not None and namespace in config.controller_namespaces


def controller_owner(review: Review) -> str | None:
    """The uid of the object's controlling owner, as the object claims it."""
    where = "object.metadata.ownerReferences"
    for _, owner in fields.items(review.metadata, "ownerReferences", "object.metadata"):
        if fields.flag(owner.get("controller"), f"{where}.controller"):
            return fields.text(owner.get("uid"), f"{where}.uid", most=128)
    return None


def made_for_pod(review: Review) -> bool:
    """Whether the object is a claim that belongs to one pod: made from its template, or for an extended resource that a device
    class backs (KEP-5004). Either way the pod is charged with its devices. What it says of itself counts only of a controller."""
    if (review.group, review.kind) != (CLAIM_GROUP, "ResourceClaim"):
        return False
    owners = [owner for _, owner in fields.items(review.metadata, "ownerReferences", "object.metadata")]
    return any(
        owner.get("controller") is True and (owner.get("apiVersion"), owner.get("kind")) == ("v1", "Pod") for owner in owners
    )


def build_input(
    review: Review,
    request: Asked,
    *,
    principal: PrincipalFact,
    gpu_shares: int,
    used_shares: int | None,
    models: list[ModelFact] | None,
    config: AdmissionConfig,
    now_unix: int,
) -> AdmissionInput:
    """The input of the decision. `models` and `used_shares` are None where they could not be found out, which denies."""
    return AdmissionInput(
        now_unix=now_unix,
        mandatory=mandatory("admission"),
        request=AdmissionRequest(
            operation=review.operation,
            group=review.group,
            kind=review.kind,
            known_kind=request.known_kind,
            accelerators_found=request.accelerators_found,
            namespace=review.namespace,
            subject=review.subject,
            principal=principal,
            gpu_shares=gpu_shares,
            pod_path=request.pod_path,
            containers=request.containers,
            models=request.models,
            weights=request.weights,
            host_access=request.host_access,
        ),
        facts=AdmissionFacts(quota=None if used_shares is None else QuotaFact(used_shares=used_shares), models=models),
        config=config,
    )
