"""Sentences for people: made here from a rule's METADATA and the values it returned, never in Rego.

A template is `{name}` and nothing more: no attributes, no indices, no format language, so a template from elsewhere can read
nothing but the violation's own `args`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.decision import Violation
from core.names import show_gpus
from policies.answer import Entry, Warned
from policies.catalogue import Catalogue, Severity

MAX_CHARACTERS = 1_000
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

OWN_RULES: Mapping[str, tuple[Severity, str, str]] = {
    "input/schema": (
        "high",
        "the input of this decision is not what the domain's schema asks for: {problem}",
        "Correct the field named in `path`; the schemas are in policies/schemas/.",
    ),
    "engine/error": (
        "critical",
        "the policy engine gave no usable answer: {problem}",
        "Look at the engine's log; `portcullis policy check` and `portcullis policy test` show a broken rule.",
    ),
    "engine/timeout": (
        "critical",
        "the policy engine did not answer within {deadline_ms} ms",
        "Look for a slow rule or an overloaded engine; policy.deadline_ms sets the limit.",
    ),
    "engine/unavailable": (
        "critical",
        "the policy engine cannot be reached: {problem}",
        "Start the engine at policy.url, or correct that address.",
    ),
    "engine/revision": (
        "critical",
        "the OPA server does not run the policies of this installation: it has {found}, expected {expected}",
        "Give the OPA server the bundle that `portcullis policy bundle build` writes, and nothing else below `portcullis`.",
    ),
    "engine/builtins": (
        "critical",
        "the OPA server has a policy that is not allowed: {problem}",
        "Remove that policy from the server; the list of built-ins is in policies/builtins.py.",
    ),
    "policy/mandatory": (
        "critical",
        "the mandatory rule {rule} was not asked for or could not be evaluated, so nothing is allowed",
        "Load the rule, or supply the facts it needs: a rule whose facts are missing does not count as evaluated.",
    ),
    "policy/grant": (
        "high",
        "no rule grants this, and what is not granted is denied",
        "Add a grant to the operator's configuration (`portcullis config set`).",
    ),
}
"""Reasons that do not come from a rule: severity, message, remediation."""


def own_violation(rule: str, path: str = "", /, **args: Any) -> Violation:
    """A violation that Python adds to what the engine said."""
    severity, message, remediation = OWN_RULES[rule]
    return Violation(rule, "enforce", path, args, severity, render(message, args), remediation)


def explain(catalogue: Catalogue, entry: Entry | Warned) -> Violation:
    """An entry of the engine's answer with its texts. The finished message of a user's rule is taken as it is."""
    args = entry.args
    exemption = (entry.exemption or "") if isinstance(entry, Warned) else ""
    rule = catalogue.get(entry.rule)
    given = clean(entry.message) if entry.message else ""
    if rule is None:
        return Violation(
            entry.rule, entry.mode, entry.path, args, "high", given or f"denied by {entry.rule}", exemption=exemption
        )
    reason = args.get("reason")
    template = rule.messages.get(reason, rule.message) if isinstance(reason, str) else rule.message
    remedy = rule.remediations.get(reason, rule.remediation) if isinstance(reason, str) else rule.remediation
    return Violation(
        entry.rule,
        entry.mode,
        entry.path,
        args,
        rule.severity,
        given or render(template, args, rule.units),
        render(remedy, args, rule.units),
        rule.controls,
        exemption,
    )


def render(template: str, args: Mapping[str, Any], units: Mapping[str, str] | None = None) -> str:
    """`template` with each `{name}` replaced once by that arg; a name that is not there stays visible."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        return show(args[name], (units or {}).get(name)) if name in args else match.group(0)

    return clean(_FIELD.sub(value, template))


def show(value: Any, unit: str | None = None) -> str:
    """A value as people read it: GPU shares as GPUs, lists joined, no JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if unit == "gpu" and isinstance(value, int) and value >= 0:
        return show_gpus(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(show(item, unit) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={show(item)}" for key, item in sorted(value.items()))
    return "none" if value is None else str(value)


def clean(text: str) -> str:
    """One line without control and direction characters (they could forge log lines), at most `MAX_CHARACTERS`."""
    text = _CONTROL.sub(" ", text)
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
