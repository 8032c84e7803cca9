"""Devices asked for through claims (DRA, `resource.k8s.io`): what a ResourceClaim may come to hold, at worst.

Read as ResourceQuota reads them (k8s.io/kubernetes/pkg/quota/v1/evaluator/core/resource_claims.go), in every shape from v1beta1
to v1 (KEP-4381, KEP-4816 for `firstAvailable`), with two differences, both towards more: a mode or a shape that is not
known is refused (it counts it as nothing), and administrators' access (KEP-5018) is counted like any other.

1. `exactly`, or its fields on the request itself (v1beta1): `count` devices of the class, 1 when absent.
2. `allocationMode: All`: 32 devices, the most that one claim can hold (`AllocationResultsMaxSize`).
3. `firstAvailable`: per class the largest alternative; in shares the dearest alternative, since only one of them is taken.
4. A device may be a partition (KEP-4815) or a part of one's capacity (KEP-5075); which, the scheduler finds out later. It is
   priced as the largest device of its class, unless a selector says nothing but `profile == '1g.5gb'` (NVIDIA's MIG).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from admission import fields, prices
from core.errors import BadInput

GROUP = "resource.k8s.io"
VERSIONS = frozenset({f"{GROUP}/v1", f"{GROUP}/v1beta1", f"{GROUP}/v1beta2"})
ALL = 32

_PROFILE = re.compile(r"\s*device\.attributes\[(['\"])gpu\.nvidia\.com\1\]\.profile\s*==\s*(['\"])([0-9a-z.+-]{1,40})\2\s*\Z")


@dataclass(frozen=True, slots=True)
class Devices:
    """`amounts` by ResourceQuota's names, `shares` what they cost at worst, `admin` the requests with administrators' access."""

    amounts: Counter[str] = field(default_factory=Counter)
    shares: int = 0
    admin: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What a pod may name: claims and templates by kind and name. `classes`: device class to `extendedResourceName`."""

    objects: Mapping[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)

    def find(self, kind: str, name: str, where: str) -> dict[str, Any]:
        """The one ResourceClaim or ResourceClaimTemplate of that name. BadInput for none, and for two that differ."""
        found = self.objects.get((kind, name), [])
        if not found:
            raise BadInput(
                f"the {kind} {name} is not known here, so the devices that it brings cannot be counted; create it in this "
                "namespace first, or ask for the devices in resources.limits",
                where=where,
            )
        if any(other != found[0] for other in found):
            raise BadInput(f"two differing objects are the {kind} {name}; give those of one namespace", where=where)
        return found[0]


def read(objects: Iterable[Any], namespace: str = "") -> Known:
    """The objects by name. With `namespace`, claims and templates of other namespaces are left out: no pod can use them.

    BadInput for anything that is no ResourceClaim, ResourceClaimTemplate or DeviceClass.
    """
    kept: dict[tuple[str, str], list[dict[str, Any]]] = {}
    classes: dict[str, str] = {}
    for index, value in enumerate(objects):
        where = f"claims[{index}]"
        found = fields.mapping(value, where)
        metadata = fields.mapping(found.get("metadata"), f"{where}.metadata")
        name = fields.needed(metadata.get("name"), f"{where}.metadata.name")
        kind = fields.needed(found.get("kind"), f"{where}.kind")
        home = fields.text(metadata.get("namespace"), f"{where}.metadata.namespace") or ""
        if kind == "DeviceClass":
            spec = fields.mapping(found.get("spec"), f"{where}.spec")
            classes[name] = fields.text(spec.get("extendedResourceName"), f"{where}.spec.extendedResourceName") or ""
        elif kind not in ("ResourceClaim", "ResourceClaimTemplate"):
            raise BadInput(
                f"{kind[:80]} is no claim; give ResourceClaims, ResourceClaimTemplates and DeviceClasses", where=where
            )
        elif not (namespace and home and home != namespace):
            kept.setdefault((kind, name), []).append(found)
    return Known(kept, classes)


def of_claim(found: dict[str, Any], table: Mapping[str, int], known: Known, where: str = "spec") -> Devices:
    """What a ResourceClaim holds once it is allocated. BadInput where that cannot be told."""
    return _devices(found, fields.mapping(found.get("spec"), where), table, known, where)


def of_template(found: dict[str, Any], table: Mapping[str, int], known: Known, where: str = "spec.spec") -> Devices:
    """What one claim made from a ResourceClaimTemplate holds. Each pod gets a claim of its own."""
    outer = fields.mapping(found.get("spec"), "spec")
    return _devices(found, fields.mapping(outer.get("spec"), where), table, known, where)


def _devices(found: dict[str, Any], spec: dict[str, Any], table: Mapping[str, int], known: Known, where: str) -> Devices:
    version = fields.needed(found.get("apiVersion"), "apiVersion")
    others = sorted(spec.keys() - {"devices"})
    if version not in VERSIONS or others:
        what = f"the field {others[0][:80]}" if version in VERSIONS else version[:120]
        raise BadInput(f"claims with {what} cannot be counted; use resource.k8s.io/v1 with spec.devices.requests", where=where)
    place = f"{where}.devices"
    amounts: Counter[str] = Counter()
    shares = 0
    admin: list[str] = []
    for path, request in fields.items(fields.mapping(spec.get("devices"), place), "requests", place):
        most: Counter[str] = Counter()
        dearest = 0
        for at, wanted in _alternatives(request, version, path):
            name, count, each = _wanted(wanted, table, known, at)
            most |= Counter({name: count})
            dearest = max(dearest, count * each)
            if fields.flag(wanted.get("adminAccess"), f"{at}.adminAccess"):
                admin.append(at)
        amounts += most
        shares += dearest
    return Devices(amounts, shares, tuple(admin))


def _alternatives(request: dict[str, Any], version: str, path: str) -> list[tuple[str, dict[str, Any]]]:
    """What may be taken for one request: one thing, or the list of `firstAvailable`. A request holds exactly one form."""
    flat = version == f"{GROUP}/v1beta1"
    forms = [key for key in ("deviceClassName" if flat else "exactly", "firstAvailable") if request.get(key) is not None]
    if forms == ["firstAvailable"]:
        found = list(fields.items(request, "firstAvailable", path))
    elif forms == ["exactly"]:
        found = [(f"{path}.exactly", fields.mapping(request["exactly"], f"{path}.exactly"))]
    else:
        found = [(path, request)] if forms == ["deviceClassName"] else []
    if not found:
        form = "deviceClassName" if flat else "exactly"
        raise BadInput(f"this form of request cannot be counted; state one of {form} and firstAvailable", where=path)
    return found


def _wanted(wanted: dict[str, Any], table: Mapping[str, int], known: Known, where: str) -> tuple[str, int, int]:
    """ResourceQuota's name for the devices, how many, and what one costs at most."""
    device_class = fields.needed(wanted.get("deviceClassName"), f"{where}.deviceClassName")
    mode = fields.text(wanted.get("allocationMode"), f"{where}.allocationMode") or "ExactCount"
    # The API server turns 0 and nothing into 1 (SetDefaults_ExactDeviceRequest).
    stated = fields.count(wanted.get("count"), f"{where}.count", default=1) or 1
    if mode not in ("ExactCount", "All"):
        raise BadInput(
            f"the allocation mode {mode[:80]!r} is not known; use ExactCount or All", where=f"{where}.allocationMode"
        )
    each = prices.device_class(device_class, table, known.classes, where)
    if device_class == "mig.nvidia.com":
        each = min([each, *_slices(wanted, table, where)])
    return device_class + prices.CLASS_DEVICES, ALL if mode == "All" else stated, each


def _slices(wanted: dict[str, Any], table: Mapping[str, int], where: str) -> Iterable[int]:
    """The price of each MIG profile that a selector pins: all selectors must hold, so each one alone is a bound."""
    for path, selector in fields.items(wanted, "selectors", where):
        cel = fields.mapping(selector.get("cel"), f"{path}.cel")
        expression = fields.text(cel.get("expression"), f"{path}.cel.expression", most=2**16) or ""
        if pinned := _PROFILE.match(expression):
            price = prices.slice_of(pinned[3], table)
            if price is not None:
                yield price
