"""The one function that counts GPUs, used by the webhook, the checks and the command line.

The sum is Kubernetes' own (k8s.io/component-helpers/resource, `PodRequests`; KEP-753 for sidecars), per resource name:

    max( containers + sidecars ,  for each init container: itself + the sidecars that started before it )

where a sidecar is an init container with `restartPolicy: Always`. For extended resources a limit is the request, and both
must be equal where both stand (k8s.io/kubernetes/pkg/apis/core/validation, `ValidateResourceRequirements`).

What cannot be counted is never zero: it is a BadInput, which every caller turns into a denial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from admission import fields, quantity
from admission.accelerators import is_accelerator
from core.errors import BadInput
from core.inputs import MAX_INTEGER


@dataclass(frozen=True, slots=True)
class Charge:
    """`resources`: accelerators by resource name, in devices; `gpu_shares`: what they come to, 20,160 to a GPU."""

    resources: dict[str, int] = field(default_factory=dict)
    gpu_shares: int = 0

    def times(self, pods: int, table: Mapping[str, int]) -> Charge:
        """What `pods` such pods hold together."""
        return of_resources({name: amount * pods for name, amount in self.resources.items()}, table)


def of_resources(resources: Mapping[str, int], table: Mapping[str, int]) -> Charge:
    """The charge of so many devices. BadInput for a device that the table does not price, or more than can be held."""
    for name in resources:
        if name not in table:
            raise BadInput(f"{name} is an accelerator without a price; add it to the table of accelerators", where=name)
    kept = {name: amount for name, amount in sorted(resources.items()) if amount}
    shares = sum(amount * table[name] for name, amount in kept.items())
    if shares > MAX_INTEGER:
        raise BadInput("asks for more devices than can be counted")
    return Charge(kept, shares)


def charge(pod_spec: Any, table: Mapping[str, int], claims: Sequence[Any] = (), *, where: str = "spec") -> Charge:
    """What one pod of this spec holds. `table` maps a resource name to shares per device.

    Raises BadInput for a wrong type, a quantity that is not a whole number, a limit that differs from its request, an
    accelerator that the table does not price, and devices asked for through claims (DRA), which are not counted yet.
    """
    spec = fields.mapping(pod_spec, where)
    if claims or fields.sequence(spec.get("resourceClaims"), f"{where}.resourceClaims"):
        raise BadInput(
            "devices asked for through resource claims (DRA) cannot be counted by this version; ask for them in resources.limits",
            where=f"{where}.resourceClaims",
        )
    running: Counter[str] = Counter()
    for path, container in fields.items(spec, "containers", where):
        running.update(_container(container, table, path))
    sidecars: Counter[str] = Counter()
    starting: Counter[str] = Counter()
    for path, container in fields.items(spec, "initContainers", where):
        asked = _container(container, table, path)
        alone = asked + sidecars
        if fields.text(container.get("restartPolicy"), f"{path}.restartPolicy") == "Always":
            sidecars = alone
        starting |= alone
    _refuse_elsewhere(spec, table, where)
    overhead = _amounts(spec.get("overhead"), table, f"{where}.overhead")
    return of_resources((running + sidecars | starting) + overhead, table)


def _refuse_elsewhere(spec: dict[str, Any], table: Mapping[str, int], where: str) -> None:
    """Places where Kubernetes gives no devices: a demand there is a mistake or a trick, so it is not counted as nothing."""
    if _container(spec, table, where):
        raise BadInput(
            "accelerators cannot be asked for at the level of the pod; ask in a container", where=f"{where}.resources"
        )
    for path, container in fields.items(spec, "ephemeralContainers", where):
        if _container(container, table, path):
            raise BadInput("an ephemeral container cannot ask for accelerators", where=f"{path}.resources")


def _container(container: dict[str, Any], table: Mapping[str, int], path: str) -> Counter[str]:
    """The accelerators of one container's `resources`."""
    place = f"{path}.resources"
    resources = fields.mapping(container.get("resources"), place)
    limits = _amounts(resources.get("limits"), table, f"{place}.limits")
    requests = _amounts(resources.get("requests"), table, f"{place}.requests")
    for name in limits.keys() & requests.keys():
        if limits[name] != requests[name]:
            raise BadInput(f"the request of {name} differs from its limit", where=place)
    return limits | requests


def _amounts(value: Any, table: Mapping[str, int], where: str) -> Counter[str]:
    """Zero stays in the counter's keys, so that `0` beside a request of 8 is seen to differ."""
    found: Counter[str] = Counter()
    for name, amount in fields.mapping(value, where).items():
        if is_accelerator(name, table):
            found[name] = quantity.whole(amount, f"{where}.{name[:200]}")
    return found
