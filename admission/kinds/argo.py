"""Argo (argoproj.io/v1alpha1): Rollouts, and Workflows, whose templates call one another."""

from __future__ import annotations

from typing import Any

from admission import fields
from admission.kinds.builtin import one_at_a_time
from admission.rows import (
    UNBOUNDED,
    Count,
    Part,
    Rows,
    Scale,
    Spot,
    Template,
    Workload,
    below,
    in_template,
    unbounded,
)
from core.errors import BadInput

_TAKEN_IN = "workflows that refer to it do not show these GPUs; state them in the templates of the Workflow itself"
_FANS_OUT = (
    "its templates run a number of pods that it does not state (withParam, recursion, a count from a parameter), so its GPUs have no "
    "bound; set spec.parallelism"
)
_MOST_CALLS = 10_000
"""More calls than this are taken as unbounded, so that nested loops cannot make the count itself long."""


def _rollout(spot: Spot) -> int:
    """A blue-green rollout keeps a second set of all replicas until somebody promotes it, and a canary with traffic routing may run
    as many beside the stable set (or the number that a step names), both for as long as people like: that is no passing surge.
    """
    replicas = spot.count("spec.replicas", 1)
    extra = replicas if spot.present("spec.strategy.blueGreen") or spot.present("spec.strategy.canary.trafficRouting") else 0
    for path, step in fields.items(spot.mapping("spec.strategy.canary"), "steps", "spec.strategy.canary"):
        if step.get("experiment") is not None:
            return UNBOUNDED
        scale = fields.mapping(step.get("setCanaryScale"), f"{path}.setCanaryScale")
        extra = max(extra, fields.count(scale.get("replicas"), f"{path}.setCanaryScale.replicas", default=0))
    return replicas + extra


def _own_template(spot: Spot) -> None:
    """`workloadRef` takes the template of another object, which this one does not show."""
    if spot.present("spec.workloadRef"):
        raise BadInput(
            "takes its pods from another object, so its GPUs cannot be counted; state spec.template", where="spec.workloadRef"
        )


def _step_pods(spot: Spot, path: str) -> Template | None:
    """A Workflow's template runs one pod when it is a container, a script or a set of containers (workflow `Template`)."""
    value, where = spot.find(path)
    found = fields.mapping(value, where)
    containers: list[Any] = [found[key] for key in ("container", "script") if found.get(key) is not None]
    group = fields.mapping(found.get("containerSet"), f"{where}.containerSet")
    containers += fields.sequence(group.get("containers"), f"{where}.containerSet.containers")
    if not containers:
        return None
    containers += fields.sequence(found.get("sidecars"), f"{where}.sidecars")
    named = [
        {"name": f"main-{index}", **fields.mapping(container, f"{where}.containers[{index}]")}
        for index, container in enumerate(containers)
    ]
    # An initContainer here may be a UserContainer with more fields; as a container it reads the same.
    initial = [{"name": "init", **each} for _, each in fields.items(found, "initContainers", where)]
    spec = {"containers": named, "initContainers": initial, "volumes": found.get("volumes")}
    metadata = fields.mapping(found.get("metadata"), f"{where}.metadata")
    covers = below(where, "container", "script", "containerSet", "sidecars", "initContainers")
    return Template(metadata, spec, where, f"{where}.metadata", images_stated=False, covers=covers)


def _calls(spec: str) -> Count:
    """How many pods of one template run at once: at most `parallelism`, where that is set; else as many as are ever started.

    Steps that run one after the other are summed as if they ran together, which is never less than what runs.
    """

    def count(spot: Spot) -> int:
        bound = spot.count(f"{spec}.parallelism", 0)
        started = _started(spot, spec)
        if bound:
            return bound if started == UNBOUNDED else min(bound, started)
        return started

    return count


def _started(spot: Spot, spec: str) -> int:
    templates = {str(item.get("name")): item for _, item in fields.items(spot.mapping(spec), "templates", spec)}
    wanted = fields.mapping(*spot.find(f"{spec}.templates[*]")).get("name")
    roots = [spot.text(f"{spec}.{field}") for field in ("entrypoint", "onExit")]
    roots += [
        str(hook.get("template")) for hook in fields.mapping(*spot.find(f"{spec}.hooks")).values() if isinstance(hook, dict)
    ]
    total = 0
    for root in roots:
        if root:
            found = _below(templates, root, str(wanted), ())
            if found == UNBOUNDED:
                return UNBOUNDED
            total += found
    return total


def _below(templates: dict[str, dict[str, Any]], name: str, wanted: str, above: tuple[str, ...]) -> int:
    """How often a call of the template `name` starts the template `wanted`."""
    if name in above:
        return UNBOUNDED
    template = templates.get(name)
    if template is None:
        return 0  # of another object, which may hold no accelerators (WorkflowTemplate)
    total = 1 if name == wanted else 0
    for call in _called(template):
        inner = _below(templates, str(call.get("template")), wanted, (*above, name)) if call.get("template") else 0
        loops = _loops(call)
        if inner and UNBOUNDED in (inner, loops):
            return UNBOUNDED
        total += inner * loops
        if total > _MOST_CALLS:
            return UNBOUNDED
        hooks = fields.mapping(call.get("hooks"), "hooks")
        for hook in [*hooks.values(), {"template": call.get("onExit")}]:
            after = _below(templates, str(hook["template"]), wanted, (*above, name)) if hook.get("template") else 0
            if after == UNBOUNDED or (after and loops == UNBOUNDED):
                return UNBOUNDED
            total += after * loops
    return total


def _called(template: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of a template: its steps, in groups, or the tasks of its graph."""
    found = [call for _, call in fields.items(fields.mapping(template.get("dag"), "dag"), "tasks", "dag")]
    for group in fields.sequence(template.get("steps"), "steps"):
        found += [fields.mapping(call, "steps") for call in (group if isinstance(group, list) else [group])]
    return found


def _loops(call: dict[str, Any]) -> int:
    """How often one step runs: once, once per item, or as a sequence says in plain numbers."""
    if call.get("withParam") is not None:
        return UNBOUNDED
    items = call.get("withItems")
    if items is not None:
        return len(items) if isinstance(items, list) else UNBOUNDED
    if call.get("withSequence") is None:
        return 1
    sequence = fields.mapping(call["withSequence"], "withSequence")
    numbers = {}
    for key in ("count", "start", "end"):
        text = str(sequence.get(key, 0))
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            return UNBOUNDED
        numbers[key] = int(text)
    if sequence.get("count") is not None:
        return numbers["count"]
    return abs(numbers["end"] - numbers["start"]) + 1


def _cron(spot: Spot) -> int:
    return one_at_a_time(_calls("spec.workflowSpec")(spot), spot.text("spec.concurrencyPolicy"))


def _templates(spec: str, count: Count, why: str) -> Workload:
    return Workload((Part(f"{spec}.templates[*]", count, _step_pods, why),))


ROWS: Rows = {
    ("argoproj.io", "Rollout"): Workload(
        (
            in_template(
                "spec.template", _rollout, why="its steps run experiments, whose pods are not bounded here; leave them out"
            ),
        ),
        Scale("rollouts", "spec.replicas"),
        check=_own_template,
    ),
    ("argoproj.io", "Workflow"): _templates("spec", _calls("spec"), _FANS_OUT),
    ("argoproj.io", "CronWorkflow"): _templates(
        "spec.workflowSpec",
        _cron,
        "its runs may overlap or fan out; set concurrencyPolicy to Forbid or Replace, and parallelism",
    ),
    ("argoproj.io", "WorkflowTemplate"): _templates("spec", unbounded, _TAKEN_IN),
    ("argoproj.io", "ClusterWorkflowTemplate"): _templates("spec", unbounded, _TAKEN_IN),
}
