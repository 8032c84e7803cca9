"""The vocabulary in which a kind is one row: where its pod templates stand, and how many pods run from each.

A path is written as the API reference writes it, from the object's root, with `[*]` for every item of a list or map:
`spec.replicatedJobs[*].template.spec.template`. A count beside it may use the same wildcards; each `[*]` then means the item
at which the template was found, so `spec.replicatedJobs[*].replicas` is the number of that same replicated job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from admission import fields
from core.errors import BadInput

UNBOUNDED = -1
"""A number of pods that the object does not bound. It counts as a refusal only where a pod of it holds accelerators."""

DEFAULTED = 2**31 - 1
"""What CRDs put where a ceiling was left out (KubeRay's `maxReplicas`): nobody's bound."""


@dataclass(frozen=True, slots=True)
class Template:
    """A pod that some controller will make. `path` is where its spec stands, `metadata_path` where its metadata stand.

    `sources`: paths and URIs of weights that the kind names in fields of its own (KServe's `storageUri`).
    `images_stated`: whether a container without an image is a mistake; some kinds take the image from elsewhere.
    `devices`: claims that the kind's own controller makes for each pod, as ResourceClaimTemplates.
    `covers`: what was read, where that is less than everything below `path`.
    `named`: resources that the object calls GPUs; one that is not known as an accelerator is refused, not taken for nothing.
    """

    metadata: dict[str, Any]
    spec: dict[str, Any]
    path: str
    metadata_path: str
    sources: tuple[tuple[str, str], ...] = ()
    images_stated: bool = True
    devices: tuple[dict[str, Any], ...] = ()
    named: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spot:
    """One place of an object: the whole object, and the item that each `[*]` of a path stands for."""

    root: dict[str, Any]
    items: tuple[str | int, ...] = ()

    def find(self, path: str) -> tuple[Any, str]:
        """The value at a path, None where it or anything above it is absent, and the path with its items filled in."""
        here: Any = self.root
        where = ""
        items = iter(self.items)
        for part in _parts(path):
            if part == "*":
                item = next(items)
                where += f"[{item}]"
                here = here[item]
                continue
            here = fields.mapping(here, where or "object").get(part)
            where = f"{where}.{part}" if where else part
        return here, where

    def count(self, path: str, default: int) -> int:
        value, where = self.find(path)
        return fields.count(value, where, default=default)

    def flag(self, path: str) -> bool:
        return fields.flag(*self.find(path))

    def text(self, path: str) -> str | None:
        return fields.text(*self.find(path))

    def mapping(self, path: str) -> dict[str, Any]:
        return fields.mapping(*self.find(path))

    def present(self, path: str) -> bool:
        return self.find(path)[0] is not None


def _parts(path: str) -> list[str]:
    return path.replace("[*]", ".*").split(".") if path else []


def spots(found: dict[str, Any], path: str) -> Iterator[Spot]:
    """Every way to fill the wildcards of a path. BadInput where a wildcard meets neither a list nor an object."""
    yield from _filled(found, _parts(path), Spot(found), "")


def _filled(here: Any, parts: list[str], spot: Spot, where: str) -> Iterator[Spot]:
    if "*" not in parts:
        yield spot
        return
    until = parts.index("*")
    for part in parts[:until]:
        here = fields.mapping(here, where or "object").get(part)
        where = f"{where}.{part}" if where else part
    if isinstance(here, dict):
        pairs: Any = fields.mapping(here, where).items()
    else:
        pairs = enumerate(fields.sequence(here, where))
    for key, item in pairs:
        yield from _filled(item, parts[until + 1 :], Spot(spot.root, (*spot.items, key)), f"{where}[{key}]")


Count = Callable[[Spot], int]
Reader = Callable[[Spot, str], Template | None]


@dataclass(frozen=True, slots=True)
class Part:
    """One sort of pod that a kind runs. `why` is the advice given when the count is UNBOUNDED for a pod with accelerators."""

    path: str
    pods: Count
    read: Reader
    why: str = ""


@dataclass(frozen=True, slots=True)
class Pods:
    """A template that was found in an object, with how many pods run from it."""

    template: Template
    count: int
    why: str


@dataclass(frozen=True, slots=True)
class Scale:
    """What the `scale` subresource changes: the API's name for the kind's objects, and the field."""

    plural: str
    path: str


@dataclass(frozen=True, slots=True)
class Workload:
    """One row. `parts` are all the pods of the kind; a kind with none makes none itself.

    `exact`: Kubernetes itself keeps other fields out, so nothing outside the parts is searched for accelerators.
    `check` refuses (BadInput) what the row cannot count in an object whose pods hold accelerators.
    """

    parts: tuple[Part, ...] = ()
    scale: Scale | None = None
    exact: bool = False
    check: Callable[[Spot], None] | None = None


def in_template(path: str, pods: Count, *, optional: bool = True, why: str = "") -> Part:
    """A PodTemplateSpec: `metadata` and `spec`."""

    def read(spot: Spot, place: str) -> Template | None:
        value, where = spot.find(place)
        if value is None and optional:
            return None
        holder = fields.mapping(value, where)
        path = f"{where}.spec" if where else "spec"
        spec = holder.get("spec")
        if not isinstance(spec, dict):
            raise BadInput(f"expected a pod's spec, found {fields.kind_of(spec)}", where=path)
        metadata_path = f"{where}.metadata" if where else "metadata"
        return Template(fields.mapping(holder.get("metadata"), metadata_path), fields.mapping(spec, path), path, metadata_path)

    return Part(path, pods, read, why)


def in_spec(path: str, pods: Count, *, inline: bool = False, why: str = "") -> Part:
    """A PodSpec without metadata of its own; the object's are those of its pods. `inline`: other fields stand among its own."""

    def read(spot: Spot, place: str) -> Template | None:
        value, where = spot.find(place)
        if value is None:
            return None
        return from_spec(spot, fields.mapping(value, where), where, covers=below(where, *POD_FIELDS) if inline else ())

    return Part(path, pods, read, why)


def in_containers(path: str, pods: Count, made: Callable[[dict[str, Any], str], dict[str, Any]], *, why: str = "") -> Part:
    """A place from which the kind's controller makes one container: `made` turns it into that container."""

    def read(spot: Spot, place: str) -> Template | None:
        value, where = spot.find(place)
        if value is None:
            return None
        pod = {"containers": [made(fields.mapping(value, where), where)]}
        return from_spec(spot, pod, where, covers=below(where, "resources", "resourcesPerNode"))

    return Part(path, pods, read, why)


POD_FIELDS = ("containers", "initContainers", "ephemeralContainers", "overhead", "resources", "resourceClaims")
"""Where a PodSpec asks for devices."""


def below(path: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{path}.{name}" for name in names)


def from_spec(spot: Spot, spec: dict[str, Any], path: str, **more: Any) -> Template:
    """The template of a pod whose metadata are those of the whole object."""
    metadata = fields.mapping(spot.root.get("metadata"), "metadata")
    return Template(metadata, spec, path, "metadata", images_stated=False, **more)


def one(_spot: Spot) -> int:
    return 1


def unbounded(_spot: Spot) -> int:
    return UNBOUNDED


def number(path: str, default: int = 1) -> Count:
    """A field that holds a number, and what the API takes for it when it is absent."""
    return lambda spot: spot.count(path, default)


def stated(path: str) -> Count:
    """A field that must be there, for what its default is stands in another object."""
    return lambda spot: spot.count(path, 0) if spot.present(path) else UNBOUNDED


def ceiling(path: str) -> Count:
    """A maximum; absent, or at the value that a CRD puts for absent, it bounds nothing."""

    def count(spot: Spot) -> int:
        found = spot.count(path, DEFAULTED)
        return UNBOUNDED if found == DEFAULTED else found

    return count


def times(*counts: Count) -> Count:
    def count(spot: Spot) -> int:
        found = [each(spot) for each in counts]
        total = 1
        for amount in found:
            total *= amount
        if UNBOUNDED in found:
            return 0 if 0 in found else UNBOUNDED
        return total

    return count


def most(*counts: Count) -> Count:
    def count(spot: Spot) -> int:
        found = [each(spot) for each in counts]
        return UNBOUNDED if UNBOUNDED in found else max(found)

    return count


def when(path: str, then: Count, otherwise: Count) -> Count:
    """By a boolean field."""
    return lambda spot: then(spot) if spot.flag(path) else otherwise(spot)


def given(path: str, then: Count, otherwise: Count) -> Count:
    """By whether a field is there."""
    return lambda spot: then(spot) if spot.present(path) else otherwise(spot)


def zero(_spot: Spot) -> int:
    return 0


def unless(path: str, count: Count) -> Count:
    """Nothing runs while the boolean field is true (`suspend`); the UPDATE that clears it is charged then."""
    return when(path, zero, count)


def job(path: str) -> Count:
    """The Job controller runs `parallelism` pods, never more than `completions` where that is stated (batch/v1 JobSpec)."""

    def count(spot: Spot) -> int:
        parallel = spot.count(f"{path}.parallelism", 1)
        return min(parallel, spot.count(f"{path}.completions", parallel))

    return count


def pods(found: dict[str, Any], workload: Workload) -> Iterator[Pods]:
    """Every template of an object of a known kind. BadInput where one cannot be read."""
    for part in workload.parts:
        for spot in spots(found, part.path):
            template = part.read(spot, part.path)
            if template is not None:
                yield Pods(template, part.pods(spot), part.why)


Rows = Mapping[tuple[str, str], Workload]
