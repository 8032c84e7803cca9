"""What a whole object holds: its pods, of every template that its kind has, times what one of them holds.

The kinds are rows of `admission.kinds`. A kind that is not there is unknown: it is refused when an accelerator's name stands
anywhere in it (`admission.accelerators.mentioned`), and so is an accelerator that stands in a known kind outside its templates.

A kind whose number of pods has no bound that the object states is a BadInput when a pod of it holds accelerators.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from admission import claims as dra
from admission import fields, rows
from admission.accelerators import is_accelerator, mentioned
from admission.charge import Charge, charge, of_claim
from admission.kinds import PASSIVE, WORKLOADS
from admission.rows import UNBOUNDED, Pods, Spot, Template, Workload
from core.errors import BadInput

__all__ = [
    "WORKLOADS",
    "Template",
    "Tree",
    "Workload",
    "charge_object",
    "charge_step",
    "charge_tree",
    "find",
    "pods_of",
    "together",
    "unknown_with_devices",
]

_PLACEMENT = frozenset(
    {"nodeSelector", "affinity", "tolerations", "labels", "annotations", "matchLabels", "labelSelector", "selector", "env"}
    | {"args", "command"}
)
"""Fields that name accelerators to say where a pod may run, or tell a program about them; no device is asked for there."""


def group_of(found: dict[str, Any]) -> str:
    """The API group in an object's own `apiVersion` ("" for the core group)."""
    group, slash, _ = fields.needed(found.get("apiVersion"), "apiVersion").partition("/")
    return group if slash else ""


def find(found: dict[str, Any]) -> Workload | None:
    """The row for an object's kind; None for a kind that is not known."""
    return WORKLOADS.get((group_of(found), fields.needed(found.get("kind"), "kind")))


def pods_of(found: dict[str, Any], workload: Workload, table: Mapping[str, int]) -> list[Pods]:
    """Every sort of pod that an object of a known kind runs. BadInput where one cannot be read or counted."""
    if workload.check is not None:
        workload.check(Spot(found))
    sorts = list(rows.pods(found, workload))
    for sort in sorts:
        for name in sort.template.named:
            if not is_accelerator(name, table):
                raise BadInput(
                    f"{name[:200]} is not known as an accelerator, so it cannot be counted", where=sort.template.path
                )
    if not workload.exact:
        _refuse_outside(found, sorts, table)
    return sorts


@dataclass(frozen=True, slots=True)
class Tree:
    """What an object of a known kind runs: its sorts of pod, what one pod of each holds, and what all of them hold together."""

    sorts: tuple[Pods, ...]
    each: tuple[Charge, ...]
    total: Charge


def charge_tree(found: dict[str, Any], workload: Workload, table: Mapping[str, int], claims: Sequence[Any] = ()) -> Tree:
    """As `charge_object`, for a known kind, with the parts."""
    metadata = fields.mapping(found.get("metadata"), "metadata")
    namespace = fields.text(metadata.get("namespace"), "metadata.namespace") or ""
    sorts = pods_of(found, workload, table)
    each = []
    for sort in sorts:
        known = [*claims, *sort.template.devices]
        each.append(charge(sort.template.spec, table, known, where=sort.template.path, namespace=namespace))
    kind = f"kind {str(found.get('kind'))[:80]}"
    total = together(_times(sort, held, kind) for sort, held in zip(sorts, each, strict=True))
    return Tree(tuple(sorts), tuple(each), total)


def charge_object(object: Any, table: Mapping[str, int], claims: Sequence[Any] = ()) -> Charge:
    """What the whole object holds. `claims`: the ResourceClaims, templates and DeviceClasses that its pods may name.

    Raises BadInput for accelerators in an unknown kind (never a silent zero), for what `charge` refuses, and for accelerators
    in a kind whose number of pods has no bound. Zero replicas or `suspend: true` hold nothing now; the UPDATE that grows them
    is charged then. A rolling update's surge is not counted: the charge is the steady state.
    """
    found = fields.mapping(object, "object")
    workload = find(found)
    if workload is not None:
        return charge_tree(found, workload, table, claims).total
    group, kind = group_of(found), found["kind"]
    if group == dra.GROUP and kind in ("ResourceClaim", "ResourceClaimTemplate"):
        classes = [item for item in claims if isinstance(item, dict) and item.get("kind") == "DeviceClass"]
        if kind == "ResourceClaim":
            return of_claim(found, table, classes)
        dra.of_template(found, table, dra.read(classes))  # holds nothing itself; one that cannot be counted is refused here too
        return Charge()
    if unknown_with_devices(group, kind, found, table):
        raise BadInput("is not a kind whose pods can be counted, and it names an accelerator", where=f"kind {kind[:80]}")
    return Charge()


def unknown_with_devices(group: str, kind: str, found: Any, table: Mapping[str, int]) -> bool:
    """Whether an object of a kind without a row could bring devices to somebody: it names an accelerator, or a claim."""
    return (group, kind) not in PASSIVE and (mentioned(found, table) or _names_a_claim(found))


def _names_a_claim(found: Any) -> bool:
    """Whether a claim or a template for claims is named anywhere, as in a pod's `resourceClaims` (DRA)."""
    stack = [found]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if item.get("resourceClaimName") or item.get("resourceClaimTemplateName"):
                return True
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


PROBE = 1_000
"""More replicas than any floor or ceiling beside them, so that the difference of one more is what one more holds."""


def charge_step(found: dict[str, Any], workload: Workload, tree: Tree) -> Charge | None:
    """What one more replica of the `scale` subresource holds; None where the kind has none, or where it holds no devices."""
    if workload.scale is None:
        return None
    fewer, more = (list(rows.pods(_with(found, workload.scale.path, replicas), workload)) for replicas in (PROBE, PROBE + 1))
    step = together(
        each.own.times(max(after.count - before.count, 0)) for each, before, after in zip(tree.each, fewer, more, strict=True)
    )
    return step if step.gpu_shares else None


def _with(found: dict[str, Any], path: str, value: int) -> dict[str, Any]:
    """The object with another value at a path; what is not on the way to it is the same object."""
    here, _, rest = path.partition(".")
    inner = fields.mapping(found.get(here), here) if rest else {}
    return {**found, here: _with(inner, rest, value) if rest else value}


def _times(sort: Pods, each: Charge, kind: str) -> Charge:
    if sort.count != UNBOUNDED:
        return each.times(sort.count)
    if each.gpu_shares or each.resources:
        raise BadInput(f"cannot be counted: {sort.why}", where=f"{kind}, {sort.template.path}")
    return each


def together(charges: Iterable[Charge]) -> Charge:
    total = Charge()
    for each in charges:
        total = total.plus(each)
    return total


def _refuse_outside(found: dict[str, Any], sorts: Sequence[Pods], table: Mapping[str, int]) -> None:
    """A row may not know every field of a kind, so an accelerator in a place that no row reads is refused, not overlooked."""
    read = {_plain(path) for sort in sorts for path in sort.template.covers or (sort.template.path,)}
    for key, value in found.items():
        if key not in ("metadata", "status", "apiVersion", "kind"):
            for path in _outside(value, key, read, table):
                raise BadInput(
                    "names an accelerator in a place where none can be counted; ask for it in a container", where=path
                )


def _plain(path: str) -> str:
    """`a[0].b[name]` and `a.0.b.name` are the same place."""
    return path.replace("[", ".").replace("]", "")


def _outside(value: Any, path: str, read: Collection[str], table: Mapping[str, int]) -> Iterator[str]:
    """The places of accelerators, as resource names or inside texts, that are not below one that was read."""
    stack = [(value, path)]
    while stack:
        here, where = stack.pop()
        if _plain(where) in read:
            continue
        if isinstance(here, dict):
            for key, item in here.items():
                if key not in _PLACEMENT:
                    if is_accelerator(str(key), table):
                        yield f"{where}[{str(key)[:200]}]"
                    stack.append((item, f"{where}.{key}"))
        elif isinstance(here, list):
            stack.extend((item, f"{where}[{index}]") for index, item in enumerate(here))
        elif isinstance(here, str) and mentioned(here, table):
            yield where
