"""The container arithmetic against a second implementation of Kubernetes' own, written from its description alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission.charge import Charge, charge
from core.errors import BadInput
from core.names import SHARES_PER_GPU as GPU

PRICES = {"nvidia.com/gpu": GPU, "nvidia.com/mig-1g.10gb": GPU // 7, "acme.example/fast": GPU // 2}

amounts = st.integers(0, 9)
written = st.sampled_from(["int", "text", "decimal", "milli", "exponent"])


def form(amount: int, how: str) -> Any:
    return {"int": amount, "text": f"{amount}", "decimal": f"{amount}.0", "milli": f"{amount}000m", "exponent": f"{amount}e0"}[
        how
    ]


@st.composite
def containers(draw: st.DrawFn, *, init: bool = False) -> dict[str, Any]:
    wanted = draw(st.dictionaries(st.sampled_from(sorted(PRICES)), amounts, max_size=3))
    limits = {name: form(amount, draw(written)) for name, amount in wanted.items()}
    both = draw(st.booleans())
    found: dict[str, Any] = {"name": "c", "resources": {"limits": {**limits, "cpu": "1"}}}
    if both:
        found["resources"]["requests"] = {name: form(amount, draw(written)) for name, amount in wanted.items()}
    policy = draw(st.sampled_from([None, "Always", "Never", "OnFailure"])) if init else None
    return found if policy is None else {**found, "restartPolicy": policy}


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "containers": draw(st.lists(containers(), max_size=4)),
        "initContainers": draw(st.lists(containers(init=True), max_size=5)),
        "overhead": draw(st.dictionaries(st.sampled_from(sorted(PRICES)), amounts, max_size=1)),
    }


def asked(container: dict[str, Any], name: str) -> int:
    """What the scheduler sees: after the API server has copied limits into the requests that are not stated."""
    resources = container["resources"]
    stated = {**resources["limits"], **resources.get("requests", {})}.get(name, 0)
    text = str(stated)
    return int(text[:-4]) if text.endswith("000m") else int(float(text))


def pod_requests(pod: dict[str, Any], name: str) -> int:
    """`PodRequests` of k8s.io/component-helpers, for one resource.

    "init containers define the minimum of any resource. Let's say `InitContainerUse(i)` is the resource requirements when the
    i-th init container is initializing, then `InitContainerUse(i) = sum(Resources of restartable init containers with
    index < i) + Resources of i-th init container`"; the containers' sum includes all restartable init containers; the larger
    of the two stands; overhead comes on top.
    """
    inits = pod["initContainers"]
    restartable = [init.get("restartPolicy") == "Always" for init in inits]
    use = [sum(asked(inits[j], name) for j in range(i) if restartable[j]) + asked(inits[i], name) for i in range(len(inits))]
    long_running = sum(asked(container, name) for container in pod["containers"])
    long_running += sum(asked(init, name) for init, stays in zip(inits, restartable, strict=True) if stays)
    return max([long_running, *use]) + pod["overhead"].get(name, 0)


@given(pods())
def test_the_sum_is_the_scheduler_s_own(pod: dict[str, Any]) -> None:
    expected = {name: total for name in sorted(PRICES) if (total := pod_requests(pod, name))}
    shares = sum(amount * PRICES[name] for name, amount in expected.items())
    assert charge(pod, PRICES) == Charge(expected, shares)


@given(pods(), st.randoms(use_true_random=False))
def test_the_order_of_containers_does_not_matter(pod: dict[str, Any], order: random.Random) -> None:
    mixed = {**pod, "containers": order.sample(pod["containers"], len(pod["containers"]))}
    assert charge(mixed, PRICES) == charge(pod, PRICES)


@given(pods(), containers())
def test_one_more_container_never_costs_less(pod: dict[str, Any], extra: dict[str, Any]) -> None:
    more = {**pod, "containers": [*pod["containers"], extra]}
    assert charge(more, PRICES).gpu_shares >= charge(pod, PRICES).gpu_shares


@given(pods())
def test_a_container_that_asks_for_nothing_adds_nothing(pod: dict[str, Any]) -> None:
    """No default, however well meant: a sidecar for logs beside a GPU holds no GPU."""
    idle = {"name": "logs", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}
    more = {**pod, "containers": [*pod["containers"], idle, {"name": "bare"}]}
    assert charge(more, PRICES) == charge(pod, PRICES)


@given(pods(), st.integers(0, 40), st.integers(0, 40))
def test_pods_add_up(pod: dict[str, Any], some: int, others: int) -> None:
    each = charge(pod, PRICES)
    assert each.times(some).plus(each.times(others)) == each.times(some + others)


NO_QUANTITIES: dict[str, Any] = {
    "half": "0.5", "milli": "500m", "nearly one": "1.0000000001", "less than nano": "1e-10", "negative": "-1", "negative zero text": "-0.1",
    "huge": "1E", "exponent": "1e30", "beyond int64": "9223372036854775808", "unicode digits": "١", "wide digits": "８", "superscript": "²",
    "underscore": "1_0", "hex": "0x1", "blank inside": "1 0", "a boolean": True, "a list": [1], "nothing": None, "empty": "", "float": 1.5,
    "not a number": float("nan"), "infinity": float("inf"), "a suffix alone": "k", "wrong case": "1K", "two points": "1..0",
}  # fmt: skip


@pytest.mark.parametrize("amount", NO_QUANTITIES.values(), ids=NO_QUANTITIES.keys())
@pytest.mark.parametrize("place", ["limits", "requests"])
def test_only_whole_numbers_of_devices_are_counted(amount: Any, place: str) -> None:
    with pytest.raises(BadInput):
        charge({"containers": [{"name": "c", "resources": {place: {"nvidia.com/gpu": amount}}}]}, PRICES)


ONE = [1, 1.0, "1", "1.0", "1e0", "1E0", "+1", "1000m", "01", "1.", "10e-1", "1000000u", " 1 ", "0.001k"]


@pytest.mark.parametrize("amount", ONE, ids=repr)
def test_every_form_of_one_is_one(amount: Any) -> None:
    found = charge({"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": amount}}}]}, PRICES)
    assert found == Charge({"nvidia.com/gpu": 1}, GPU)


@pytest.mark.parametrize("restart", ["always", "Always ", "ALWAYS", "OnFailure", "Never", ""])
def test_only_always_makes_a_sidecar(restart: str) -> None:
    limits = {"limits": {"nvidia.com/gpu": 3}}
    main = {"name": "main", "resources": limits}
    pod = {"containers": [main], "initContainers": [{**main, "restartPolicy": restart}]}
    assert charge(pod, PRICES).gpu_shares == 3 * GPU


@pytest.mark.parametrize("name", ["nvidia.com/gpu", "acme.example/fast", "nvidia.com/mig-3g.20gb"])
def test_pod_level_resources_cannot_hold_devices(name: str) -> None:
    pod = {"containers": [{"name": "c"}], "resources": {"limits": {name: 1, "cpu": "4"}}}
    with pytest.raises(BadInput, match="level of the pod"):
        charge(pod, PRICES)
    assert charge({**pod, "resources": {"limits": {"cpu": "4", "memory": "8Gi", name: 0}}}, PRICES) == Charge()
