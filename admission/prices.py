"""What a device costs: from a resource name, or a device class (DRA), to integer shares, 20,160 to one GPU.

The operator's table decides (`policies/defaults/accelerators.yaml` stands under it). Where it is silent, three things are known
without it: a MIG slice costs its compute share of a seven-slice card, a vendor's GPU class (DRA) costs a whole GPU because a
claim may end up with one, and HAMi's `gpucores` is a percentage of the card. Everything else is a BadInput: what cannot be
priced is denied, never counted as nothing. `docs/gpu-accounting.md` lists the names with their sources.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import BadInput
from core.names import SHARES_PER_GPU

IMPLICIT_CLASS = "deviceclass.resource.kubernetes.io/"
"""KEP-5004: `deviceclass.resource.kubernetes.io/CLASS` in a container asks for devices of that class."""

CLASS_DEVICES = ".deviceclass.resource.k8s.io/devices"
"""`CLASS.deviceclass.resource.k8s.io/devices` is how ResourceQuota names a class's devices, and so do we."""

GPU_CLASSES = frozenset(
    {"gpu.nvidia.com", "mig.nvidia.com", "vfio.gpu.nvidia.com", "gpu.amd.com", "gpu.intel.com", "tpu.google.com"}
)
"""Classes that the vendors' DRA drivers install. A device of them is at most one whole GPU."""

_MIG = re.compile(r"nvidia\.com/mig-([12347])g\.[1-9][0-9]{0,3}gb(?:[.+-](?:me|gfx|all|shared))*\Z", re.ASCII)
_SLICES = 7


@dataclass(frozen=True, slots=True)
class Virtual:
    """Names by which a sharing scheduler cuts a card: so many vGPUs (`count`), each with `cores` percent of the card's compute.

    `memory` says how much of a card's memory each gets, which makes its compute no larger. `other`: no part of a card at all.
    """

    count: str
    cores: str
    memory: frozenset[str]
    other: frozenset[str] = frozenset()


VIRTUAL = (
    Virtual(
        "nvidia.com/gpu",
        "nvidia.com/gpucores",
        frozenset({"nvidia.com/gpumem", "nvidia.com/gpumem-percentage"}),
        frozenset({"nvidia.com/priority"}),
    ),
    Virtual(
        "volcano.sh/vgpu-number",
        "volcano.sh/vgpu-cores",
        frozenset({"volcano.sh/vgpu-memory", "volcano.sh/vgpu-memory-percentage"}),
    ),
    Virtual("hygon.com/dcunum", "hygon.com/dcucores", frozenset({"hygon.com/dcumem"})),
)
"""HAMi and Volcano (HAMi `docs/config.md`, volcano `docs/user-guide/how_to_use_volcano_vgpu.md`)."""

_CORES = frozenset(row.cores for row in VIRTUAL)
_BESIDE = frozenset(name for row in VIRTUAL for name in row.memory | row.other)
"""Priced only where the operator prices them."""


def device(name: str, table: Mapping[str, int], classes: Mapping[str, str], where: str) -> int:
    """Shares of one device of a resource. `classes` maps a device class to its `extendedResourceName` ("" for none).

    BadInput for an accelerator that has no price.
    """
    if name in table:
        return table[name]
    if found := _MIG.match(name):
        return SHARES_PER_GPU // _SLICES * int(found[1])
    if name.startswith(IMPLICIT_CLASS):
        return device_class(name.removeprefix(IMPLICIT_CLASS), table, classes, where)
    backing = [each for each, extended in classes.items() if extended == name]
    if backing:
        return max(device_class(each, table, classes, where) for each in backing)
    raise BadInput(f"{name[:200]} is an accelerator without a price; add it to the table of accelerators", where=where)


def device_class(name: str, table: Mapping[str, int], classes: Mapping[str, str], where: str) -> int:
    """Shares of the largest device that a claim on this class may get. BadInput for a class that has no price."""
    extended = classes.get(name) or ""
    for key in (name + CLASS_DEVICES, extended):
        if key in table:
            return table[key]
    if name in GPU_CLASSES:
        return SHARES_PER_GPU
    raise BadInput(
        f"the device class {name[:200]} has no price; add {name[:200]}{CLASS_DEVICES} to the table of accelerators "
        "(0 when its devices are no accelerators)",
        where=where,
    )


def slice_of(profile: str, table: Mapping[str, int]) -> int | None:
    """Shares of a MIG slice by its profile (`1g.5gb`, `1g.10gb+me`); None when that is not a profile."""
    name = "nvidia.com/mig-" + profile.replace("+", ".")
    if name in table:
        return table[name]
    return device(name, {}, {}, name) if _MIG.match(name) else None


def container(amounts: Mapping[str, int], table: Mapping[str, int], classes: Mapping[str, str], where: str) -> Counter[str]:
    """Shares that one container's devices cost, by resource name. BadInput where one has no price."""
    found: Counter[str] = Counter()
    for row in VIRTUAL:
        if amounts.keys() & {row.cores, *row.memory}:
            # HAMi's webhook makes it one vGPU where only a part of one is asked for (`defaultGPUNum`).
            found[row.count] = amounts.get(row.count, 1) * _virtual(row, amounts, table, where)
    for name, amount in amounts.items():
        if name in found or name in _CORES or (name in _BESIDE and name not in table):
            continue
        found[name] = amount * device(name, table, classes, where)
    return found


def _virtual(row: Virtual, amounts: Mapping[str, int], table: Mapping[str, int], where: str) -> int:
    """Shares of one vGPU. Without cores, or with 0, nothing limits its compute, so it costs the whole card."""
    whole = device(row.count, table, {}, where)
    cores = amounts.get(row.cores, 0)
    if not cores:
        return whole
    if table.get(row.cores):
        return cores * table[row.cores]
    if cores > 100:
        raise BadInput(f"{row.cores} is a percentage of one card, and {cores} is more than 100", where=where)
    if whole * cores % 100:
        raise BadInput(
            f"{cores} % of a card is not a whole number of shares; ask for a multiple of 5", where=f"{where}.{row.cores}"
        )
    return whole * cores // 100
