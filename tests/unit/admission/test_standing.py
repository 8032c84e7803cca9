from __future__ import annotations

from typing import Any

import pytest

from admission import decide, review
from admission.standing import Change, Holding, Standing, change, going, key_of
from core.inputs import AdmissionConfig
from tests.unit.admission.reviews import GPU, TABLE, config, create, deployment, document, pod, remove, update

CONTROLLER = "system:serviceaccount:kube-system:replicaset-controller"


def holding(gpus: int, *, uid: str = "before", team: str = "a") -> Holding:
    return Holding("acme", team, gpus * GPU, GPU, uid)


def standing(used: int = 0, own: Holding | None = None, *, owner_paid: bool = False) -> Standing:
    return Standing(version=1, used_shares=used * GPU, own=own, owner_paid=owner_paid, marked=False)


def changed(data: bytes, found: Standing, settings: AdmissionConfig | None = None) -> Change:
    asking = review.read(review.parse(data))
    asked = decide.asked(asking, TABLE)
    return change(asking, asked, found, tenant="acme", team="a", config=settings or config())


def test_create_adds() -> None:
    assert changed(create(deployment(2, 2, uid="d")), standing(3)) == Change(4 * GPU, 2 * GPU, 4 * GPU, 3 * GPU, "d")


def test_update_replaces_its_own_charge() -> None:
    found = changed(update(deployment(1, 3), deployment(1, 2)), standing(5, holding(2)))
    assert (found.after, found.asked, found.used) == (3 * GPU, 3 * GPU, 3 * GPU)


def test_a_parked_workload_keeps_a_row_that_holds_nothing() -> None:
    found = changed(create(deployment(2, 0)), standing())
    assert (found.after, found.pod_shares, found.asked) == (0, 2 * GPU, 0)


def test_a_workload_without_gpus_has_no_row() -> None:
    assert changed(create(deployment()), standing()).after is None


def test_create_of_a_charged_name_keeps_the_larger() -> None:
    """Case 2: the API server refuses it as AlreadyExists, and four GPUs go on running."""
    found = changed(create(deployment(1, 0)), standing(4, holding(4)))
    assert (found.after, found.used + found.asked) == (4 * GPU, 4 * GPU)
    larger = changed(create(deployment(1, 6)), standing(4, holding(4)))
    assert (larger.after, larger.used, larger.asked) == (6 * GPU, 0, 6 * GPU)


def test_a_retry_of_a_create_replaces_its_own_row() -> None:
    found = changed(create(deployment(1, 2), uid="again"), standing(4, holding(4, uid="again")))
    assert (found.after, found.used) == (2 * GPU, 0)


def test_a_holding_in_another_team_is_not_taken_off_this_one() -> None:
    assert changed(update(deployment(1, 2), deployment(1, 2)), standing(3, holding(2, team="b"))).used == 3 * GPU


def owned(found: dict[str, Any]) -> dict[str, Any]:
    found["metadata"]["ownerReferences"] = [{"uid": "other"}, {"uid": "owner", "controller": True}]
    return found


def test_a_controller_manager_under_one_name_is_a_controller() -> None:
    data = create(owned(pod(8)), user="system:kube-controller-manager")
    assert changed(data, standing(4, owner_paid=True)).asked == 0
    assert changed(data, standing(4, owner_paid=True), config(controller_namespaces=[])).asked == 8 * GPU


def test_what_a_controller_makes_for_a_paid_owner_holds_nothing() -> None:
    found = changed(create(owned(pod(8)), user=CONTROLLER), standing(4, owner_paid=True))
    assert (found.after, found.asked, found.used) == (None, 0, 4 * GPU)
    replica_set = owned({**deployment(8, 4, uid="rs"), "kind": "ReplicaSet"})
    marked = changed(create(replica_set, user=CONTROLLER), standing(4, owner_paid=True))
    assert (marked.after, marked.asked, marked.mark) == (0, 0, "rs")


@pytest.mark.parametrize(
    "user", ["alice", "system:serviceaccount:team-a:replicaset-controller", "system:serviceaccount:kube-system:a:b"]
)
def test_a_claimed_owner_from_anybody_else_is_charged(user: str) -> None:
    assert changed(create(owned(pod(8)), user=user), standing(4, owner_paid=True)).asked == 8 * GPU


def test_a_controller_without_a_paid_owner_is_charged() -> None:
    assert changed(create(owned(pod(8)), user=CONTROLLER), standing(4)).asked == 8 * GPU


DEVICES = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com", "count": 3}}]}}
SCHEDULER = "system:kube-scheduler"
CLAIM_CONTROLLER = "system:serviceaccount:kube-system:resource-claim-controller"


def claim(owner_kind: str | None = "Pod", *, controller: bool = True, kind: str = "ResourceClaim") -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": owner_kind, "name": "p", "uid": "u", "controller": controller}
    metadata = {"name": "c", "namespace": "team-a", "uid": "claim", "ownerReferences": [owner] if owner_kind else []}
    spec = DEVICES if kind == "ResourceClaim" else {"spec": DEVICES}
    return {"apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def test_a_claim_is_charged_by_itself_and_a_template_by_its_pods() -> None:
    found = changed(create(claim(None)), standing(1))
    assert (found.after, found.asked, found.used, found.mark) == (3 * GPU, 3 * GPU, GPU, None)
    assert changed(create(claim(None, kind="ResourceClaimTemplate")), standing(1)) == Change(None, 0, 0, GPU, None)
    assert changed(remove(claim(None)), standing(4, holding(3))) == Change(None, 0, 0, GPU, None)


@pytest.mark.parametrize("user", [SCHEDULER, CLAIM_CONTROLLER])
def test_a_claim_that_was_made_for_a_pod_is_in_the_pod_s_charge(user: str) -> None:
    assert changed(create(claim(), user=user), standing(4)).asked == 0
    assert changed(create(claim(), user=user), standing(4), config(controller_namespaces=[])).asked == 3 * GPU


NOT_MADE_FOR_A_POD = {
    "by a person": (claim(), "alice@acme.example"),
    "by the namespace's own account": (claim(), "system:serviceaccount:team-a:default"),
    "without an owner": (claim(None), SCHEDULER),
    "that is no claim": (pod(3, ownerReferences=claim()["metadata"]["ownerReferences"]), CLAIM_CONTROLLER),
    "of another owner": (claim("PodGroup"), CLAIM_CONTROLLER),
    "of a pod that does not control it": (claim(controller=False), CLAIM_CONTROLLER),
}


@pytest.mark.parametrize(("found", "user"), NOT_MADE_FOR_A_POD.values(), ids=NOT_MADE_FOR_A_POD.keys())
def test_any_other_claim_is_charged(found: dict[str, Any], user: str) -> None:
    assert changed(create(found, user=user), standing(4)).asked == 3 * GPU


def test_an_update_of_a_claim_s_status_asks_nothing() -> None:
    """Written by a driver under its own name, it must neither charge a pod's claim again nor take a claim off the books."""
    allocated = {**claim(), "status": {"allocation": {}}}
    assert changed(update(allocated, claim(), user="system:serviceaccount:drivers:gpu"), standing(4)) == Change(
        None, 0, 0, 4 * GPU, None
    )
    held = changed(update(allocated, claim()), standing(4, holding(3)))
    assert (held.after, held.asked, held.used) == (3 * GPU, 0, 4 * GPU)
    grown = {
        **claim(None),
        "spec": {"devices": {"requests": [{"name": "g", "exactly": {"deviceClassName": "gpu.nvidia.com", "count": 9}}]}},
    }
    assert changed(update(grown, claim(None)), standing(3, holding(3))).after == 9 * GPU


def test_administrators_access_is_reported_at_the_claim_and_at_the_template() -> None:
    request = {"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com", "adminAccess": True}}
    for kind, spec in (("ResourceClaim", {"devices": {"requests": [request]}}), ("ResourceClaimTemplate", {"spec": {"devices": {"requests": [request]}}})):  # fmt: skip
        asking = review.read(document("CREATE", {**claim(None, kind=kind), "spec": spec}))
        assert [use.kind for use in decide.asked(asking, TABLE).host_access] == ["device_admin"]


def test_what_shares_a_claim_is_charged_without_it() -> None:
    found = pod(1)
    found["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": "c"}]
    asked = decide.asked(review.read(document("CREATE", found)), TABLE, [claim(None)])
    assert (asked.total.gpu_shares, asked.each.gpu_shares) == (GPU, GPU)


def test_the_controlling_owner_is_the_one_that_says_so() -> None:
    assert decide.controller_owner(review.read(document("CREATE", owned(pod(1))))) == "owner"


def leaving(old: dict[str, Any], **options: Any) -> bool:
    return going(review.read(review.parse(remove(old, options=options))))


def running(**spec: Any) -> dict[str, Any]:
    found = pod(1)
    found["spec"].update({"nodeName": "n", **spec})
    return found


def test_delete_gives_back() -> None:
    found = changed(remove(deployment(1, 4)), standing(4, holding(4)))
    assert (found.after, found.asked, found.used) == (None, 0, 0)
    assert leaving(pod(1))
    assert leaving(running(), gracePeriodSeconds=0)
    assert leaving(running(terminationGracePeriodSeconds=0))
    assert leaving({**running(), "status": {"phase": "Succeeded"}})


LASTING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a finalizer": (deployment(1, finalizers=["a/b"]), {}),
    "dependents first": (deployment(1), {"propagationPolicy": "Foreground"}),
    "orphans": (deployment(1), {"propagationPolicy": "Orphan"}),
    "orphans, the old way": (deployment(1), {"orphanDependents": True}),
    "a running pod": (running(), {}),
    "a pod that takes its time": (running(terminationGracePeriodSeconds=10**9), {}),
}


@pytest.mark.parametrize(("old", "options"), LASTING.values(), ids=LASTING.keys())
def test_a_delete_that_lets_it_live_keeps_the_charge(old: dict[str, Any], options: dict[str, Any]) -> None:
    assert not leaving(old, **options)
    found = changed(remove(old, options=options), standing(4, holding(1)))
    assert (found.after, found.used, found.asked) == (GPU, 4 * GPU, 0)


def test_the_last_finalizer_gives_back() -> None:
    old = deployment(1, finalizers=["a/b"], deletionTimestamp="2026-01-01T00:00:00Z")
    new = deployment(1, deletionTimestamp="2026-01-01T00:00:00Z")
    assert going(review.read(review.parse(update(new, old))))
    assert not going(review.read(review.parse(update(old, old))))
    orphaning = deployment(1, finalizers=["orphan"], deletionTimestamp="2026-01-01T00:00:00Z")
    assert not going(review.read(review.parse(update(new, orphaning))))


def test_a_terminating_pod_is_charged_until_its_grace_is_over() -> None:
    terminating = running()
    terminating["metadata"].update({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30})
    assert not going(review.read(review.parse(update(terminating, terminating))))


def test_a_terminating_object_that_grows_is_charged() -> None:
    """failure-cases/admission.md 14."""
    held = {"finalizers": ["a/b"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert changed(update(deployment(1, 9, **held), deployment(1, 1, **held)), standing(1, holding(1))).asked == 9 * GPU


def test_a_scale_is_about_the_scaled_object() -> None:
    scale = {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "chat", "namespace": "team-a"},
        "spec": {"replicas": 9},
    }
    resource = {"group": "apps", "version": "v1", "resource": "deployments"}
    asking = review.read(document("UPDATE", scale, old=scale, subResource="scale", resource=resource))
    assert key_of(asking) == key_of(review.read(document("CREATE", deployment(1))))


def test_an_update_towards_the_end_asks_for_nothing_and_keeps_the_charge() -> None:
    held = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    old = deployment(4, 1, finalizers=["a/b", "c/d"], **held)
    found = changed(update(deployment(4, 1, finalizers=["a/b"], **held), old), standing(4, holding(4)), config(1))
    assert (found.after, found.asked) == (4 * GPU, 0)
    alive = changed(update(deployment(4, 1), deployment(4, 1)), standing(4, holding(4)), config(1))
    assert alive.asked == 4 * GPU


def test_an_update_towards_the_end_is_asked_nothing_more_than_a_delete() -> None:
    held = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    ending = update(deployment(1, **held), deployment(1, finalizers=["a/b"], **held))
    assert decide.asked(review.read(review.parse(ending)), TABLE) == decide.Asked(known_kind=True, accelerators_found=False)
