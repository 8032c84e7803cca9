"""The one function that counts GPUs, used by the webhook, the checks and the command line.

The sum is Kubernetes' own (k8s.io/component-helpers/resource, `PodRequests`; KEP-753 for sidecars), per resource name:

    max( containers + sidecars ,  for each init container: itself + the sidecars that started before it ) + overhead

where a sidecar is an init container with `restartPolicy: Always`. For extended resources a limit is the request, and both
must be equal where both stand (k8s.io/kubernetes/pkg/apis/core/validation, `ValidateResourceRequirements`). Devices that come
through claims (DRA) are added: `admission.claims` reads them. Prices are `admission.prices`.

What cannot be counted is never zero: it is a BadInput, which every caller turns into a denial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from admission import claims as dra
from admission import fields, prices, quantity
from admission.accelerators import is_accelerator
from core.errors import BadInput
from core.inputs import MAX_INTEGER


@dataclass(frozen=True, slots=True)
class Charge:
    """`resources`: accelerators by resource name, in devices; `gpu_shares`: what they come to, 20,160 to a GPU.

    `claims`: the ResourceClaims that the pods share, by name, each with its own charge. They stand in the amounts once, however
    many pods use them. A caller that charges the ResourceClaim objects themselves takes `own`.
    """

    resources: dict[str, int] = field(default_factory=dict)
    gpu_shares: int = 0
    claims: dict[str, Charge] = field(default_factory=dict)

    @property
    def own(self) -> Charge:
        """Without the shared claims."""
        resources = Counter(self.resources)
        for shared in self.claims.values():
            resources.subtract(shared.resources)
        return Charge(dict(+resources), self.gpu_shares - sum(shared.gpu_shares for shared in self.claims.values()))

    def times(self, pods: int) -> Charge:
        """What `pods` such pods hold together: their own devices each, shared claims once."""
        own = self.own
        resources = Counter({name: amount * pods for name, amount in own.resources.items()})
        return _total(resources, own.gpu_shares * pods, self.claims if pods else {})

    def plus(self, other: Charge) -> Charge:
        """What both hold together. A claim that both name is one."""
        mine, theirs = self.own, other.own
        resources = Counter(mine.resources) + Counter(theirs.resources)
        return _total(resources, mine.gpu_shares + theirs.gpu_shares, {**self.claims, **other.claims})


def of_resources(resources: Mapping[str, int], table: Mapping[str, int]) -> Charge:
    """The charge of so many devices. BadInput for a device that has no price, or more than can be held."""
    amounts = Counter(resources)
    return _total(amounts, prices.container(amounts, table, {}, "resources").total(), {})


def of_claim(claim: Any, table: Mapping[str, int], classes: Sequence[Any] = ()) -> Charge:
    """What a ResourceClaim holds by itself. `classes`: the DeviceClass objects. BadInput where that cannot be told."""
    return of_devices(dra.of_claim(fields.mapping(claim, "object"), table, dra.read(classes)))


def of_devices(held: dra.Devices) -> Charge:
    """The charge of what a claim holds."""
    return _total(held.amounts, held.shares, {})


def charge(
    pod_spec: Any, table: Mapping[str, int], claims: Sequence[Any] = (), *, where: str = "spec", namespace: str = ""
) -> Charge:
    """What one pod of this spec holds. `table` maps a resource name to shares per device.

    `claims`: the ResourceClaims, ResourceClaimTemplates and DeviceClasses of the cluster that it may name; with `namespace`,
    claims of other namespaces are passed over.

    Raises BadInput for a wrong type, a quantity that is not a whole number, a limit that differs from its request, an
    accelerator or a device class that has no price, and a claim that is not known or cannot be read.
    """
    spec = fields.mapping(pod_spec, where)
    known = dra.read(claims, namespace)
    counting = _Counting(table, known)
    running = [counting.container(container, path) for path, container in fields.items(spec, "containers", where)]
    starting = [
        (counting.container(container, path), _is_sidecar(container, path))
        for path, container in fields.items(spec, "initContainers", where)
    ]
    counting.refuse_elsewhere(spec, where)
    overhead = counting.priced(counting.amounts(spec.get("overhead"), f"{where}.overhead"), f"{where}.overhead")
    amounts = _peak([each.amounts for each in running], [(each.amounts, stays) for each, stays in starting])
    shares = _peak([each.shares for each in running], [(each.shares, stays) for each, stays in starting])
    own, shared = counting.claimed(spec, where)
    return _total(
        amounts + overhead.amounts + own.amounts,
        shares.total() + overhead.shares.total() + own.shares,
        {name: of_devices(held) for name, held in shared.items()},
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """One container's devices, and what they cost, both by resource name."""

    amounts: Counter[str]
    shares: Counter[str]


@dataclass(frozen=True, slots=True)
class _Counting:
    """What every step of a count needs."""

    table: Mapping[str, int]
    known: dra.Known

    def container(self, container: dict[str, Any], path: str) -> _Asked:
        """The accelerators of one container's `resources`."""
        place = f"{path}.resources"
        resources = fields.mapping(container.get("resources"), place)
        limits = self.amounts(resources.get("limits"), f"{place}.limits")
        requests = self.amounts(resources.get("requests"), f"{place}.requests")
        for name in limits.keys() & requests.keys():
            if limits[name] != requests[name]:
                raise BadInput(f"the request of {name} differs from its limit", where=place)
        return self.priced(Counter({**limits, **requests}), place)

    def amounts(self, value: Any, where: str) -> Counter[str]:
        """Zero stays in the counter's keys, so that `0` beside a request of 8 is seen to differ."""
        found: Counter[str] = Counter()
        backed = set(self.known.classes.values()) - {""}
        for name, amount in fields.mapping(value, where).items():
            if name in backed or is_accelerator(name, self.table):
                found[name] = quantity.whole(amount, f"{where}.{name[:200]}")
        return found

    def priced(self, amounts: Counter[str], where: str) -> _Asked:
        return _Asked(amounts, prices.container(amounts, self.table, self.known.classes, where))

    def refuse_elsewhere(self, spec: dict[str, Any], where: str) -> None:
        """Places where Kubernetes gives no devices: a demand there is a mistake or a trick, so it is not counted as nothing."""
        if +self.container(spec, where).amounts:
            raise BadInput(
                "accelerators cannot be asked for at the level of the pod (KEP-2837 knows cpu, memory and hugepages); "
                "ask in a container",
                where=f"{where}.resources",
            )
        for path, container in fields.items(spec, "ephemeralContainers", where):
            if +self.container(container, path).amounts:
                raise BadInput("an ephemeral container cannot ask for accelerators", where=f"{path}.resources")

    def claimed(self, spec: dict[str, Any], where: str) -> tuple[dra.Devices, dict[str, dra.Devices]]:
        """What comes through claims: those made for this pod alone, and the shared ones by name.

        Every entry counts, whether a container uses it or not: the scheduler allocates it.
        """
        own, shares = Counter[str](), 0
        shared: dict[str, dra.Devices] = {}
        for path, entry in fields.items(spec, "resourceClaims", where):
            kind, name = _reference(entry, path)
            found = self.known.find(kind, name, path)
            if kind == "ResourceClaim":
                shared[name] = dra.of_claim(found, self.table, self.known, f"ResourceClaim/{name}.spec")
                continue
            held = dra.of_template(found, self.table, self.known, f"ResourceClaimTemplate/{name}.spec.spec")
            own += held.amounts
            shares += held.shares
        return dra.Devices(own, shares), shared


def _reference(entry: dict[str, Any], path: str) -> tuple[str, str]:
    """The kind and name of what an entry of `spec.resourceClaims` names; v1alpha2 and v1alpha3 put it below `source`."""
    source = fields.mapping(entry.get("source"), f"{path}.source")
    names = {
        (kind, name)
        for place, at in ((entry, path), (source, f"{path}.source"))
        for kind, key in (("ResourceClaim", "resourceClaimName"), ("ResourceClaimTemplate", "resourceClaimTemplateName"))
        if (name := fields.text(place.get(key), f"{at}.{key}", most=253))
    }
    if len(names) != 1:
        raise BadInput("names no claim that can be counted; state resourceClaimName or resourceClaimTemplateName", where=path)
    return names.pop()


def _is_sidecar(container: dict[str, Any], path: str) -> bool:
    return fields.text(container.get("restartPolicy"), f"{path}.restartPolicy") == "Always"


def _peak(running: Iterable[Counter[str]], starting: Iterable[tuple[Counter[str], bool]]) -> Counter[str]:
    """The most that is held at once, per name. `starting`: the init containers in their order, and which of them stay."""
    steady: Counter[str] = Counter()
    for asked in running:
        steady += asked
    sidecars: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for asked, stays in starting:
        alone = asked + sidecars
        if stays:
            sidecars = alone
        most |= alone
    return steady + sidecars | most


def _total(own: Counter[str], shares: int, claims: Mapping[str, Charge]) -> Charge:
    """The charge of own devices and shared claims. BadInput for more than can be held."""
    resources = +own
    for shared in claims.values():
        resources += Counter(shared.resources)
        shares += shared.gpu_shares
    if shares > MAX_INTEGER or any(amount > MAX_INTEGER for amount in resources.values()):
        raise BadInput("asks for more devices than can be counted")
    return Charge(dict(sorted(resources.items())), shares, dict(sorted(claims.items())))
