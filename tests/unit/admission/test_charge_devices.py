"""What each kind of device costs: slices, shared cards, virtual cards, other vendors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission.charge import Charge, charge, of_resources
from core import yamlread
from core.errors import BadInput
from core.names import SHARES_PER_GPU as GPU
from core.names import shares_of

TABLE = {"nvidia.com/gpu": GPU}
SHIPPED = {
    name: shares_of(share)
    for name, share in yamlread.load(Path("policies/defaults/accelerators.yaml").read_text(), where="defaults")["accelerators"].items()
}  # fmt: skip


def one(limits: Mapping[str, Any]) -> dict[str, Any]:
    return {"containers": [{"name": "c", "resources": {"limits": dict(limits)}}]}


def sevenths(count: int) -> int:
    return count * GPU // 7


SLICES = {
    "1g.5gb": 1, "1g.5gb.me": 1, "1g.10gb": 1, "2g.10gb": 2, "2g.10gb+me": 2, "3g.20gb": 3, "4g.20gb": 4, "7g.40gb": 7, "7g.80gb": 7,
    "1g.23gb": 1, "3g.90gb": 3, "7g.180gb": 7, "1g.34gb-me": 1, "1g.24gb+me.all": 1, "1g.24gb+gfx": 1, "2g.999gb": 2, "1g.5gb.shared": 1,
}  # fmt: skip


@pytest.mark.parametrize(("profile", "slices"), SLICES.items())
def test_a_mig_slice_costs_its_compute_share(profile: str, slices: int) -> None:
    assert charge(one({f"nvidia.com/mig-{profile}": 2}), TABLE).gpu_shares == 2 * sevenths(slices)


NO_SLICES = [
    "0g.5gb", "5g.40gb", "6g.40gb", "8g.80gb", "10g.5gb", "1g", "1g.gb", "1g.05gb", "1c.2g.10gb", "1g.5gb+", "1g.5gb.xx", "g.5gb", "1g.5gbx",
    "१g.5gb", "1g.５gb", "1g.5gb\n", "1g.99999gb",
]  # fmt: skip


@pytest.mark.parametrize("profile", NO_SLICES)
def test_an_unknown_shape_of_slice_is_refused(profile: str) -> None:
    with pytest.raises(BadInput, match="without a price"):
        charge(one({f"nvidia.com/mig-{profile}": 1}), TABLE)


def test_the_operator_s_price_of_a_slice_comes_first() -> None:
    """An A30 has four slices, so its 1g is a quarter; and an operator may know a card that we do not."""
    assert charge(one({"nvidia.com/mig-1g.6gb": 1}), SHIPPED).gpu_shares == GPU // 4
    assert charge(one({"nvidia.com/mig-1g.5gb": 1}), {"nvidia.com/mig-1g.5gb": GPU // 2}).gpu_shares == GPU // 2


@given(st.integers(0, 1000), st.sampled_from([1, 2, 3, 4, 7]))
def test_slices_are_exact_in_any_number(count: int, slices: int) -> None:
    assert 7 * charge(one({f"nvidia.com/mig-{slices}g.9gb": count}), TABLE).gpu_shares == count * slices * GPU


SHARED: dict[str, tuple[dict[str, Any], dict[str, int], int]] = {
    "time-sliced, four to a card": ({"nvidia.com/gpu.shared": 3}, {"nvidia.com/gpu.shared": GPU // 4}, 3 * GPU // 4),
    "MPS under the plain name": ({"nvidia.com/gpu": 5}, {"nvidia.com/gpu": GPU // 10}, GPU // 2),
    "a name known from configuration only": ({"acme.example/card": 2}, {"acme.example/card": GPU // 3}, 2 * GPU // 3),
}


@pytest.mark.parametrize(("limits", "table", "shares"), SHARED.values(), ids=SHARED.keys())
def test_replicas_cost_their_configured_share(limits: dict[str, Any], table: dict[str, int], shares: int) -> None:
    assert charge(one(limits), table) == Charge(limits, shares)


VIRTUAL: dict[str, tuple[dict[str, Any], int]] = {
    "a third of a card": ({"nvidia.com/gpu": 1, "nvidia.com/gpucores": 30}, GPU * 30 // 100),
    "two of a third": ({"nvidia.com/gpu": 2, "nvidia.com/gpucores": 30}, 2 * GPU * 30 // 100),
    "with memory": ({"nvidia.com/gpu": 2, "nvidia.com/gpucores": 50, "nvidia.com/gpumem": 3000}, GPU),
    "with a part of the memory": (
        {"nvidia.com/gpu": 1, "nvidia.com/gpucores": 25, "nvidia.com/gpumem-percentage": 50},
        GPU // 4,
    ),
    "memory alone leaves the compute unlimited": ({"nvidia.com/gpu": 1, "nvidia.com/gpumem": 3000}, GPU),
    "no cores are no limit": ({"nvidia.com/gpu": 2, "nvidia.com/gpucores": 0}, 2 * GPU),
    "all cores": ({"nvidia.com/gpu": 2, "nvidia.com/gpucores": 100}, 2 * GPU),
    "HAMi adds one vGPU where cores stand alone": ({"nvidia.com/gpucores": 40}, GPU * 40 // 100),
    "and where memory stands alone": ({"nvidia.com/gpumem": 1000}, GPU),
    "even as zero": ({"nvidia.com/gpumem-percentage": 0}, GPU),
    "no vGPU": ({"nvidia.com/gpu": 0, "nvidia.com/gpucores": 40}, 0),
    "a priority is no card": ({"nvidia.com/priority": 1}, 0),
    "Volcano's": ({"volcano.sh/vgpu-number": 2, "volcano.sh/vgpu-cores": 50, "volcano.sh/vgpu-memory": 1}, GPU),
    "Hygon's": ({"hygon.com/dcunum": 1, "hygon.com/dcucores": 60, "hygon.com/dcumem": 2000}, GPU * 60 // 100),
}


@pytest.mark.parametrize(("limits", "shares"), VIRTUAL.values(), ids=VIRTUAL.keys())
def test_a_virtual_card_costs_its_cores(limits: dict[str, Any], shares: int) -> None:
    assert charge(one(limits), SHIPPED).gpu_shares == shares


def test_virtual_cards_are_counted_container_by_container() -> None:
    """Cores multiply the vGPUs of their own container: 1 × 50 % + 3 × 10 %, not 4 × 60 %."""
    small = {"nvidia.com/gpu": 3, "nvidia.com/gpucores": 10}
    pod = {"containers": one({"nvidia.com/gpu": 1, "nvidia.com/gpucores": 50})["containers"] + one(small)["containers"]}
    assert charge(pod, SHIPPED) == Charge({"nvidia.com/gpu": 4, "nvidia.com/gpucores": 60}, GPU * 80 // 100)


def test_cores_need_a_whole_number_of_shares_and_at_most_one_card() -> None:
    with pytest.raises(BadInput, match="multiple of 5"):
        charge(one({"nvidia.com/gpu": 5, "nvidia.com/gpucores": 33}), SHIPPED)
    with pytest.raises(BadInput, match="more than 100"):
        charge(one({"nvidia.com/gpu": 1, "nvidia.com/gpucores": 105}), SHIPPED)


def test_an_operator_may_price_cores_and_memory() -> None:
    table = {"nvidia.com/gpu": GPU, "nvidia.com/gpucores": 200, "nvidia.com/gpumem": 1}
    assert charge(one({"nvidia.com/gpu": 2, "nvidia.com/gpucores": 33}), table).gpu_shares == 2 * 33 * 200
    assert charge(one({"nvidia.com/gpu": 1, "nvidia.com/gpumem": 7}), table).gpu_shares == GPU + 7
    free = {"nvidia.com/gpu": GPU, "nvidia.com/gpucores": 0}
    assert charge(one({"nvidia.com/gpu": 1, "nvidia.com/gpucores": 33 - 3}), free).gpu_shares == GPU * 30 // 100


@given(st.integers(0, 16), st.integers(0, 20))
def test_cores_never_cost_more_than_the_cards(count: int, twentieths: int) -> None:
    limits = {"nvidia.com/gpu": count, "nvidia.com/gpucores": 5 * twentieths}
    assert charge(one(limits), SHIPPED).gpu_shares == count * (GPU * twentieths // 20 or GPU)


OTHERS = ["amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "habana.ai/gaudi", "google.com/tpu", "aws.amazon.com/neuron",
          "aws.amazon.com/neurondevice", "aws.amazon.com/neuroncore", "huawei.com/Ascend910", "nvidia.com/gpu.shared"]  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_vendors_cost_one_unit_of_their_own_kind(name: str) -> None:
    assert charge(one({name: 4}), SHIPPED) == Charge({name: 4}, 4 * GPU)


UNPRICED = ["amd.com/gpu", "google.com/tpu", "aws.amazon.com/neuron", "habana.ai/gaudi", "nvidia.com/gpu.shared", "nvidia.com/GRID_T4-1Q",
            "huawei.com/Ascend310", "iluvatar.ai/vcuda-core", "mthreads.com/sgpu-core", "acme.example/gpu"]  # fmt: skip


@pytest.mark.parametrize("name", UNPRICED)
@pytest.mark.parametrize("place", ["containers", "initContainers"])
def test_an_accelerator_without_a_price_is_refused(name: str, place: str) -> None:
    with pytest.raises(BadInput, match="without a price"):
        charge({place: one({name: 1})["containers"]}, TABLE)


def test_counted_devices_are_priced_alike_everywhere() -> None:
    assert of_resources({"nvidia.com/gpu": 2, "nvidia.com/gpucores": 50}, TABLE) == charge(
        one({"nvidia.com/gpu": 2, "nvidia.com/gpucores": 50}), TABLE
    )
    with pytest.raises(BadInput, match="without a price"):
        of_resources({"amd.com/gpu": 1}, TABLE)


@given(st.dictionaries(st.sampled_from(["cpu", "memory", "rdma/ib", "hugepages-2Mi", "acme.example/licence", "nvidia.com/rdma"]), st.integers(0, 99)))  # fmt: skip
def test_no_gpu_is_ever_added_to_a_container_that_asked_for_none(limits: dict[str, int]) -> None:
    assert charge(one(limits), SHIPPED) == Charge()
