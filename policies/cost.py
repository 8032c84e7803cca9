"""What each rule costs, by itself, in the embedded engine: `policy check --cost`.

A rule is evaluated over the inputs that its own tests give (`with input as …`) and over those that the caller brings. Processor time of
this thread is measured, so that a busy machine counts little; of an input the median of several runs counts, of a rule its slowest
input. A rule over its budget is measured once more, with more runs, before it is said to be.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from core.canonical import canonical
from core.decision import DOMAINS
from core.errors import BadInput, ConfigError
from policies.catalogue import Rule
from policies.check import Loaded, load_tree
from policies.embedded import build
from policies.program import Node, read_module, split, written
from policies.syntax import dotted, parse
from policies.tree import Source, read_tree
from policies.validate import check_input

DEFAULT_BUDGET_US = 2_000
"""Generous: the slowest shipped rule takes about a tenth of it, so that a slow machine fails no build."""
RUNS = 7
PROBE = "portcullis_input"


@dataclass(frozen=True, slots=True)
class Cost:
    """One rule. Times in microseconds of processor time; None where no input reached the rule."""

    rule: Rule
    inputs: int
    median_us: float | None
    slowest_us: float | None
    budget_us: int

    @property
    def share(self) -> float | None:
        """Of the budget, by the slowest input."""
        return None if self.slowest_us is None else self.slowest_us / self.budget_us

    def as_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule.id,
            "inputs": self.inputs,
            "median_us": self.median_us,
            "slowest_us": self.slowest_us,
            "budget_us": self.budget_us,
            "share": self.share,
        }

    @property
    def problem(self) -> str:
        """What is wrong, if anything is."""
        if self.slowest_us is None:
            return "its tests give no input (`with input as …`), so nobody knows what it costs"
        if self.slowest_us > self.budget_us:
            return (
                f"takes {self.slowest_us:,.0f} µs over its slowest input, and its budget is {self.budget_us:,} µs. "
                "Look things up by key and not by iteration, or raise custom.budget_us in its METADATA"
            )
        return ""


def measure(
    root: Path | None = None, extra: Sequence[Path] = (), inputs: Iterable[Mapping[str, Any]] = (), *, runs: int = RUNS
) -> Iterable[Cost]:
    """Each rule in turn, so that progress can be shown. `inputs`: documents, measured with the rules of each domain they fit.

    ConfigError as `load_tree`.
    """
    tree = read_tree(root, extra)
    loaded = load_tree(root, extra)
    engine, problem = build(loaded.bundle.modules)
    if problem:
        raise ConfigError(f"these rules do not load together: {problem}", where="policies")
    brought: dict[str, list[str]] = {domain: [] for domain in DOMAINS}
    for document in inputs:
        try:
            text = canonical(dict(document))
        except BadInput:
            continue  # a number beyond 2^53, say: it is denied before any rule, and costs none
        for domain in DOMAINS:
            if check_input(domain, text) is None:
                brought[domain].append(text.decode())
    for rule in loaded.catalogue.rules():
        own = [text for source in tree.tests if source.rule_id == rule.id for text in tested(loaded, source)]
        yield _cost(engine, loaded, rule, [*dict.fromkeys([*own, *brought[rule.domain]])], runs)


def tested(loaded: Loaded, source: Source) -> list[str]:
    """The inputs that a test file gives, as JSON; those made of a test's own variables are left out."""
    module = read_module(source)
    text = source.text.encode()
    statements = [
        statement
        for found in module.rules.values()
        for definition in found
        for body in definition.bodies
        for statement in body.statements
    ]
    expressions = dict.fromkeys(_given(statement, text) for statement in statements)
    values = [_value(loaded, source, module.package, expression) for expression in expressions if expression]
    return [value for value in values if value is not None]


def _given(statement: Node, text: bytes) -> str:
    """The expression after `with input as`, as it is written."""
    for modifier in statement.get("with_mods") or []:
        kind, target = split(modifier["refr"])
        if kind == "Var" and target["value"] == "input":
            return written(text, modifier["as"])
    return ""


def _value(loaded: Loaded, source: Source, package: Sequence[str | None], expression: str) -> str | None:
    engine, problem = build({**loaded.bundle.modules, source.path: f"{source.text}\n{PROBE} := {expression}\n"})
    if problem:
        return None
    try:
        engine.set_input_json("{}")
        value = json.loads(engine.eval_rule_as_json(dotted(("data", *package, PROBE))))
    except (RuntimeError, ValueError):
        return None
    return json.dumps(value) if isinstance(value, dict) else None


def _cost(engine: Any, loaded: Loaded, rule: Rule, inputs: Sequence[str], runs: int) -> Cost:
    budget = rule.budget_us or DEFAULT_BUDGET_US
    if not inputs:
        return Cost(rule, 0, None, None, budget)
    names = _exports(loaded, rule)
    medians = [_median(engine, names, text, runs) for text in inputs]
    slowest = max(medians)
    if slowest > budget:
        slowest = min(slowest, _median(engine, names, inputs[medians.index(slowest)], runs * 3))
    return Cost(rule, len(inputs), median(medians), slowest, budget)


def _exports(loaded: Loaded, rule: Rule) -> list[str]:
    domain, name = rule.id.split("/")
    (path,) = [path for path in loaded.bundle.modules if path.startswith(f"rules/{rule.id}/")]
    defined = parse(path, loaded.bundle.modules[path]).names
    base = ("data", "portcullis", "rules", domain, name)
    return [dotted((*base, export)) for export in ("checked", "deny", "grant") if export in defined]


def _median(engine: Any, names: Sequence[str], text: str, runs: int) -> float:
    """Microseconds that all exports of a rule take together over one input."""
    times = []
    for _ in range(runs):
        clone = engine.clone()
        clone.set_input_json(text)
        start = time.thread_time_ns()
        for name in names:
            try:
                clone.eval_rule_as_json(name)
            except RuntimeError:
                break  # a test's input need not fit the schema; what was done until then counts
        times.append((time.thread_time_ns() - start) / 1000)
    return median(times)
