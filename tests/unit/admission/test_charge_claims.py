"""Devices asked for through claims (DRA): at their worst, once, and never as nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission import claims as dra
from admission.charge import Charge, charge, of_claim
from core.errors import BadInput
from core.names import SHARES_PER_GPU as GPU

TABLE = {
    "nvidia.com/gpu": GPU,
    "nvidia.com/mig-1g.6gb": GPU // 4,
    "nvidia.com/mig-1g.6gb.me": GPU // 4,
    "net.example.com.deviceclass.resource.k8s.io/devices": 0,
}
GPUS = "gpu.nvidia.com.deviceclass.resource.k8s.io/devices"
MIGS = "mig.nvidia.com.deviceclass.resource.k8s.io/devices"
V1, V1BETA1, V1BETA2 = "resource.k8s.io/v1", "resource.k8s.io/v1beta1", "resource.k8s.io/v1beta2"


def wanted(device_class: str = "gpu.nvidia.com", **more: Any) -> dict[str, Any]:
    return {"deviceClassName": device_class, **more}


def exactly(device_class: str = "gpu.nvidia.com", **more: Any) -> dict[str, Any]:
    return {"name": "r", "exactly": wanted(device_class, **more)}


def first(*alternatives: dict[str, Any]) -> dict[str, Any]:
    return {"name": "r", "firstAvailable": [{"name": f"a{i}", **each} for i, each in enumerate(alternatives)]}


def claim(*requests: Any, name: str = "c", version: str = V1, **metadata: Any) -> dict[str, Any]:
    spec = {"devices": {"requests": list(requests)}}
    return {"apiVersion": version, "kind": "ResourceClaim", "metadata": {"name": name, **metadata}, "spec": spec}


def template(*requests: Any, name: str = "t", version: str = V1, **metadata: Any) -> dict[str, Any]:
    inner = claim(*requests, version=version)
    return {**inner, "kind": "ResourceClaimTemplate", "metadata": {"name": name, **metadata}, "spec": {"spec": inner["spec"]}}


def device_class(name: str, extended: str | None = None) -> dict[str, Any]:
    return {"apiVersion": V1, "kind": "DeviceClass", "metadata": {"name": name}, "spec": {"extendedResourceName": extended}}


def pod(*entries: dict[str, Any], containers: int = 1, limits: dict[str, Any] | None = None) -> dict[str, Any]:
    use = {"claims": [{"name": f"d{i}"} for i in range(len(entries))], "limits": limits or {}}
    return {
        "containers": [{"name": f"c{i}", "resources": use} for i in range(containers)],
        "resourceClaims": [{"name": f"d{i}", **entry} for i, entry in enumerate(entries)],
    }


BY_TEMPLATE, BY_NAME = {"resourceClaimTemplateName": "t"}, {"resourceClaimName": "c"}

MIG_1G = {"cel": {"expression": "device.attributes['gpu.nvidia.com'].profile == '1g.5gb'"}}
MIG_3G = {"cel": {"expression": " device.attributes[\"gpu.nvidia.com\"].profile=='3g.20gb'\n"}}
A30_1G = {"cel": {"expression": "device.attributes['gpu.nvidia.com'].profile == '1g.6gb'"}}
A30_1G_ME = {"cel": {"expression": "device.attributes['gpu.nvidia.com'].profile == '1g.6gb+me'"}}
EITHER = {"cel": {"expression": "device.attributes['gpu.nvidia.com'].profile == '1g.5gb' || true"}}
ODD = {"cel": {"expression": "device.attributes['gpu.nvidia.com'].profile == '9g.5gb'"}}

REQUESTS: dict[str, tuple[list[dict[str, Any]], dict[str, int], int]] = {
    "one, unsaid": ([exactly()], {GPUS: 1}, GPU),
    "one, as zero": ([exactly(count=0)], {GPUS: 1}, GPU),
    "a count": ([exactly(count=3, allocationMode="ExactCount")], {GPUS: 3}, 3 * GPU),
    "all there are": ([exactly(allocationMode="All")], {GPUS: 32}, 32 * GPU),
    "two requests": ([exactly(count=2), exactly()], {GPUS: 3}, 3 * GPU),
    "the dearest alternative": ([first(wanted(count=1), wanted(count=4), wanted(count=2))], {GPUS: 4}, 4 * GPU),
    "alternatives of two classes": ([first(wanted(count=2), wanted("mig.nvidia.com", count=7, selectors=[MIG_1G]))], {GPUS: 2, MIGS: 7}, 2 * GPU),
    "an alternative that takes all": ([first(wanted(), wanted("mig.nvidia.com", allocationMode="All"))], {GPUS: 1, MIGS: 32}, 32 * GPU),
    "a network card for nothing": ([exactly("net.example.com", count=2)], {"net.example.com.deviceclass.resource.k8s.io/devices": 2}, 0),
    "a partition of unknown size": ([exactly("mig.nvidia.com")], {MIGS: 1}, GPU),
    "a partition that a selector pins": ([exactly("mig.nvidia.com", count=2, selectors=[MIG_1G])], {MIGS: 2}, 2 * GPU // 7),
    "pinned in other words": ([exactly("mig.nvidia.com", selectors=[MIG_3G])], {MIGS: 1}, 3 * GPU // 7),
    "pinned, by the table": ([exactly("mig.nvidia.com", selectors=[A30_1G])], {MIGS: 1}, GPU // 4),
    "pinned, with a media engine": ([exactly("mig.nvidia.com", selectors=[A30_1G_ME])], {MIGS: 1}, GPU // 4),
    "not pinned by a choice": ([exactly("mig.nvidia.com", selectors=[EITHER])], {MIGS: 1}, GPU),
    "not pinned by an unknown profile": ([exactly("mig.nvidia.com", selectors=[ODD])], {MIGS: 1}, GPU),
    "a profile says nothing of a whole card": ([exactly(selectors=[MIG_1G])], {GPUS: 1}, GPU),
    "a part of the capacity": ([exactly(capacity={"requests": {"memory": "1Gi"}})], {GPUS: 1}, GPU),
    "administrators are not exempt": ([exactly(count=2, adminAccess=True)], {GPUS: 2}, 2 * GPU),
    "nothing asked": ([], {}, 0),
}  # fmt: skip


@pytest.mark.parametrize(("requests", "amounts", "shares"), REQUESTS.values(), ids=REQUESTS.keys())
@pytest.mark.parametrize("form", ["claim", "template", "pod by claim", "pod by template"])
def test_requests_are_charged_at_their_worst(form: str, requests: list[Any], amounts: dict[str, int], shares: int) -> None:
    found = {
        "claim": lambda: of_claim(claim(*requests), TABLE),
        "template": lambda: charge(pod(BY_TEMPLATE), TABLE, [template(*requests)]),
        "pod by claim": lambda: charge(pod(BY_NAME), TABLE, [claim(*requests)]),
        "pod by template": lambda: charge(pod(BY_TEMPLATE, containers=3), TABLE, [template(*requests), claim(exactly())]),
    }[form]()
    assert (found.resources, found.gpu_shares) == (amounts, shares)


def flat(**more: Any) -> dict[str, Any]:
    return {"name": "r", **wanted(**more)}


@pytest.mark.parametrize("more", [{}, {"count": 5}, {"allocationMode": "All"}, {"adminAccess": True, "count": 2}], ids=str)
def test_all_versions_of_the_api_give_the_same_charge(more: dict[str, Any]) -> None:
    expected = of_claim(claim(exactly(**more)), TABLE)
    assert expected == of_claim(claim(exactly(**more), version=V1BETA2), TABLE)
    assert expected == of_claim(claim(flat(**more), version=V1BETA1), TABLE)
    assert of_claim(claim(first(wanted(**more)), version=V1BETA1), TABLE) == expected


UNREADABLE: dict[str, Any] = {
    "an unknown mode": claim(exactly(allocationMode="Half")),
    "an unknown mode among alternatives": claim(first(wanted(), wanted(allocationMode="some"))),
    "an unknown form": claim({"name": "r", "atLeast": wanted()}),
    "two forms": claim({**exactly(), **first(wanted())}),
    "no form": claim({"name": "r"}),
    "no alternatives": claim({"name": "r", "firstAvailable": []}),
    "the old form in the new version": claim(flat()),
    "the new form in the old version": claim(exactly(), version=V1BETA1),
    "no class": claim({"name": "r", "exactly": {"count": 1}}),
    "a class without a price": claim(exactly("gpu.example.com")),
    "another class without a price": claim(exactly("cpu.example.com")),
    "a negative count": claim(exactly(count=-1)),
    "a count as text": claim(exactly(count="2")),
    "a count beyond int32": claim(exactly(count=2**31)),
    "a boolean count": claim(exactly(count=True)),
    "adminAccess as text": claim(exactly(adminAccess="true")),
    "requests an object": {**claim(), "spec": {"devices": {"requests": {}}}},
    "a request that is text": claim("gpu"),
    "v1alpha2": {**claim(), "apiVersion": "resource.k8s.io/v1alpha2", "spec": {"resourceClassName": "gpu.nvidia.com"}},
    "v1alpha3": claim(flat(), version="resource.k8s.io/v1alpha3"),
    "another group": claim(exactly(), version="evil.example/v1"),
    "a class of v1alpha2 in v1": {**claim(), "spec": {"resourceClassName": "gpu.nvidia.com"}},
    "more than can be counted": claim(*[exactly(count=2**31 - 1)] * 300),
}


@pytest.mark.parametrize("found", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_claim_that_cannot_be_read_is_never_zero(found: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        of_claim(found, TABLE)
    with pytest.raises(BadInput):
        charge(pod(BY_NAME), TABLE, [found])


ENTRIES: dict[str, dict[str, Any]] = {
    "an unknown claim": {"resourceClaimName": "other"},
    "an unknown template": {"resourceClaimTemplateName": "c"},
    "a template's name for a claim": {"resourceClaimName": "t"},
    "an inner unknown claim": {"source": {"resourceClaimName": "other"}},
    "no reference": {},
    "an empty one": {"resourceClaimName": "", "resourceClaimTemplateName": None},
    "two": {"resourceClaimName": "c", "resourceClaimTemplateName": "t"},
    "a pod group's": {"podGroupResourceClaim": "x"},
    "source that differs": {"resourceClaimName": "c", "source": {"resourceClaimTemplateName": "t"}},
    "a number": {"resourceClaimName": 1},
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_a_pod_that_names_no_known_claim_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        charge(pod(entry), TABLE, [claim(exactly()), template(exactly())])


def test_a_pod_whose_claims_nobody_handed_in_is_refused() -> None:
    with pytest.raises(BadInput, match="the ResourceClaimTemplate t is not known here"):
        charge(pod(BY_TEMPLATE), TABLE)


def test_the_inner_shape_of_the_reference_counts_too() -> None:
    assert charge(pod({"source": BY_TEMPLATE}), TABLE, [template(exactly(count=2))]).gpu_shares == 2 * GPU


def test_each_pod_gets_its_own_claim_from_a_template() -> None:
    one = charge(pod(BY_TEMPLATE, BY_TEMPLATE), TABLE, [template(exactly())])
    assert one == Charge({GPUS: 2}, 2 * GPU)
    assert one.times(8) == Charge({GPUS: 16}, 16 * GPU)


def test_containers_and_pods_that_share_a_claim_hold_it_once() -> None:
    """Four containers, eight pods, two workloads, one claim of two devices: two devices, and the charge says whose they are."""
    shared = Charge({GPUS: 2}, 2 * GPU)
    found = charge(pod(BY_NAME, BY_NAME, containers=4), TABLE, [claim(exactly(count=2))])
    assert found == Charge({GPUS: 2}, 2 * GPU, {"c": shared})
    assert found.own == Charge()
    assert found.times(8) == found
    assert found.times(8).plus(found) == found
    assert found.times(0) == Charge()
    other = charge(pod({"resourceClaimName": "d"}), TABLE, [claim(exactly(), name="d")])
    assert found.plus(other) == other.plus(found) == Charge({GPUS: 3}, 3 * GPU, {**found.claims, **other.claims})


def test_own_devices_multiply_beside_a_shared_claim() -> None:
    found = charge(
        pod(BY_NAME, BY_TEMPLATE, limits={"nvidia.com/gpu": 1}), TABLE, [claim(exactly(count=2)), template(exactly())]
    )
    assert found.own == Charge({"nvidia.com/gpu": 1, GPUS: 1}, 2 * GPU)
    assert found.times(3).gpu_shares == (3 * 2 + 2) * GPU


def test_a_claim_of_another_namespace_is_not_there() -> None:
    there = claim(exactly(), namespace="b")
    assert charge(pod(BY_NAME), TABLE, [there], namespace="b").gpu_shares == GPU
    with pytest.raises(BadInput, match="is not known here"):
        charge(pod(BY_NAME), TABLE, [there], namespace="a")
    here = claim(exactly(count=2), namespace="a")
    assert charge(pod(BY_NAME), TABLE, [there, here], namespace="a").gpu_shares == 2 * GPU
    with pytest.raises(BadInput, match="one namespace"):
        charge(pod(BY_NAME), TABLE, [there, here])
    assert charge(pod(limits={"nvidia.com/gpu": 1}), TABLE, [there, here]).gpu_shares == GPU


def test_an_extended_resource_that_a_class_backs_is_charged_once() -> None:
    """KEP-5004: `nvidia.com/gpu: 1` becomes a claim of one device, not one more."""
    backed = device_class("gpu.nvidia.com", "nvidia.com/gpu")
    assert charge(pod(limits={"nvidia.com/gpu": 1}), TABLE, [backed]) == Charge({"nvidia.com/gpu": 1}, GPU)


def test_a_name_that_only_a_class_makes_an_accelerator() -> None:
    backed = device_class("gpu.nvidia.com", "acme.example/widget")
    assert charge(pod(limits={"acme.example/widget": 3}), TABLE, [backed]) == Charge({"acme.example/widget": 3}, 3 * GPU)
    unpriced = device_class("fast.example.com", "acme.example/widget")
    with pytest.raises(BadInput, match=r"fast\.example\.com has no price"):
        charge(pod(limits={"acme.example/widget": 1}), TABLE, [unpriced])


def test_a_class_costs_what_its_extended_resource_costs() -> None:
    backed = device_class("cards.example.com", "nvidia.com/gpu")
    assert of_claim(claim(exactly("cards.example.com", count=2)), TABLE, [backed]).gpu_shares == 2 * GPU


@pytest.mark.parametrize(("name", "shares"), [("gpu.nvidia.com", GPU), ("net.example.com", 0), ("fast.example.com", None)])
def test_the_implicit_name_of_a_class_is_priced_as_the_class(name: str, shares: int | None) -> None:
    limits = {f"deviceclass.resource.kubernetes.io/{name}": 2}
    if shares is None:
        with pytest.raises(BadInput, match="has no price"):
            charge(pod(limits=limits), TABLE)
    else:
        assert charge(pod(limits=limits), TABLE) == Charge(limits, 2 * shares)


def test_the_operator_s_price_of_a_class_comes_first() -> None:
    table = {**TABLE, GPUS: GPU // 2}
    assert of_claim(claim(exactly()), table).gpu_shares == GPU // 2


def test_administrators_access_is_reported() -> None:
    found = dra.of_claim(claim(exactly(), exactly(adminAccess=True)), TABLE, dra.Known())
    assert found.admin == ("spec.devices.requests[1].exactly",)


@pytest.mark.parametrize(
    "value", [None, "c", {"kind": "Pod", "metadata": {"name": "c"}}, {"kind": "ResourceClaim"}, {"metadata": {"name": "c"}}]
)
def test_what_is_no_claim_is_not_passed_over(value: Any) -> None:
    with pytest.raises(BadInput):
        charge(pod(), TABLE, [value])


counts = st.integers(1, 9)


@given(
    st.lists(counts, min_size=1, max_size=4), st.lists(st.lists(counts, min_size=1, max_size=3), max_size=3), st.integers(0, 5)
)
def test_a_template_costs_the_sum_of_the_worst_of_each_request(single: list[int], choices: list[list[int]], pods: int) -> None:
    requests = [exactly(count=n) for n in single] + [first(*[wanted(count=n) for n in each]) for each in choices]
    devices = pods * (sum(single) + sum(max(each) for each in choices))
    found = charge(pod(BY_TEMPLATE), TABLE, [template(*requests)]).times(pods)
    assert found == Charge({GPUS: devices} if devices else {}, devices * GPU)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.sampled_from(["gpu.nvidia.com", "All", "c"]), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["devices", "requests", "exactly", "firstAvailable", "deviceClassName", "count", "allocationMode", "selectors"]), inner, max_size=4), max_leaves=20))  # fmt: skip
def test_any_claim_is_charged_or_refused(spec: Any) -> None:
    with contextlib.suppress(BadInput):
        assert of_claim({**claim(), "spec": spec}, TABLE).gpu_shares >= 0
