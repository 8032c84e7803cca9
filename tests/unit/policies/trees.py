"""A small tree of rules to break: the library the aggregators need and the rules that core asks for, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.decision import MANDATORY
from policies.check import Loaded, load_tree

MODES = """\
package portcullis.lib.modes

default mode(_) := "enforce"

mode(rule) := input.config.modes[rule]
"""
EXEMPTIONS = """\
package portcullis.lib.exemptions

id(rule) := found.id if {
	some found in input.config.exemptions
	found.rule == rule
}
"""
OBLIGATIONS = """\
package portcullis.lib.obligations

obligations := {"redact_log": true}
"""
METADATA = """\
# METADATA
# title: {title}
# description: A rule of the tests.
# custom:
#   severity: medium
#   message: "{{asked}} GPUs are asked for, {{limit}} are allowed"
#   messages: {{other: "something else: {{what}}"}}
#   remediation: Ask for less.
#   units: {{asked: gpu, limit: gpu}}
#   controls: [test/1]
"""
ADMISSION_BODY = """\
default checked := false

checked if is_number(input.request.gpu_shares)

deny contains {"path": "spec", "args": {"asked": input.request.gpu_shares, "limit": 20160}} if {
	input.request.gpu_shares > 20160
}
"""
GRANT_BODY = """\
default checked := false

checked if is_string(input.request.model)

grant contains found.id if some found in input.config.grants
"""
QUIET_GRANT_BODY = 'default checked := false\n\nchecked if is_string(input.request.model)\n\ngrant contains "always"\n'
BUNDLE_BODY = QUIET_GRANT_BODY.replace("request.model", "request.subject")
SILENT_BODY = "default checked := false\n\nchecked := true\n\ndeny contains {} if false\n"


def module(rule_id: str, body: str, *, metadata: str | None = None) -> str:
    domain, name = rule_id.split("/")
    head = METADATA.format(title=name) if metadata is None else metadata
    return f'{head}package portcullis.rules.{domain}["{name}"]\n\n{body}'


def files(**changes: str | None) -> dict[str, str]:
    """The tree by path. `changes`: rule ids (with `__` for `/` and `_` for `-`) to a body; None leaves the rule out."""
    tree = {
        "lib/modes/modes.rego": MODES,
        "lib/exemptions/exemptions.rego": EXEMPTIONS,
        "lib/obligations/obligations.rego": OBLIGATIONS,
    }
    bodies: dict[str, str | None] = {
        rule: ADMISSION_BODY
        if domain == "admission"
        else QUIET_GRANT_BODY
        if domain == "lineage"
        else BUNDLE_BODY
        if domain == "bundle"
        else GRANT_BODY
        for domain, rules in MANDATORY.items()
        for rule in rules
    }
    bodies["admission/approved-images"] = SILENT_BODY
    bodies["admission/approved-model"] = SILENT_BODY
    bodies["admission/encrypted-weights"] = SILENT_BODY
    bodies["admission/frozen"] = SILENT_BODY
    bodies["admission/namespace-isolation"] = SILENT_BODY
    bodies["gateway/frozen"] = SILENT_BODY
    bodies["gateway/purpose"] = SILENT_BODY
    bodies.update({name.replace("__", "/").replace("_", "-"): body for name, body in changes.items()})
    for rule, body in bodies.items():
        if body is not None:
            tree[f"rules/{rule}/{rule.split('/')[1]}.rego"] = module(rule, body)
    return tree


def write(folder: Path, tree: dict[str, str]) -> Path:
    for path, text in tree.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def extra(folder: Path, rule_id: str, body: str, *, metadata: str | None = None) -> Path:
    """An operator's folder with one rule."""
    return write(folder, {f"rules/{rule_id}/{rule_id.split('/')[1]}.rego": module(rule_id, body, metadata=metadata)})


PRINCIPAL = {"ref": "ref:1", "kind": "user", "tenant": "acme"}


def admission_input(gpu_shares: int = 20160, **config: Any) -> dict[str, Any]:
    return {
        "now_unix": 1_800_000_000,
        "mandatory": list(MANDATORY["admission"]),
        "request": {
            "operation": "CREATE",
            "group": "apps",
            "kind": "Deployment",
            "known_kind": True,
            "accelerators_found": True,
            "namespace": "team-a",
            "subject": "Deployment/chat",
            "principal": PRINCIPAL,
            "gpu_shares": gpu_shares,
        },
        "facts": {},
        "config": {"revision": "sha256:" + "1" * 64, **config},
    }


def gateway_input(*, grants: int = 1, **config: Any) -> dict[str, Any]:
    return {
        "now_unix": 1_800_000_000,
        "mandatory": list(MANDATORY["gateway"]),
        "request": {"route": "/v1/chat/completions", "model": "llama-3", "version": "7", "principal": PRINCIPAL},
        "facts": {},
        "config": {
            "revision": "sha256:" + "1" * 64,
            "grants": [{"id": f"g{i}", "model": "llama-3"} for i in range(grants)],
            **config,
        },
    }


def weights_input() -> dict[str, Any]:
    return {
        "now_unix": 1_800_000_000,
        "mandatory": list(MANDATORY["weights"]),
        "request": {
            "action": "release",
            "model": "llama-3",
            "version": "7",
            "manifest_digest": "sha256:" + "a" * 64,
            "principal": PRINCIPAL,
        },
        "facts": {},
        "config": {"revision": "sha256:" + "1" * 64},
    }


def lineage_input() -> dict[str, Any]:
    return {
        "now_unix": 1_800_000_000,
        "mandatory": list(MANDATORY["lineage"]),
        "request": {
            "action": "approve",
            "model": "llama-3",
            "version": "7",
            "subject_digest": "sha256:" + "a" * 64,
            "principal": PRINCIPAL,
        },
        "facts": {},
        "config": {"revision": "sha256:" + "1" * 64},
    }


def bundle_input() -> dict[str, Any]:
    return {
        "now_unix": 1_800_000_000,
        "mandatory": list(MANDATORY["bundle"]),
        "request": {"action": "activate", "subject": "p1", "digest": "sha256:" + "a" * 64, "principal": PRINCIPAL},
        "facts": {},
        "config": {"revision": "sha256:" + "1" * 64},
    }


INPUTS = {
    "admission": admission_input(),
    "gateway": gateway_input(),
    "weights": weights_input(),
    "lineage": lineage_input(),
    "bundle": bundle_input(),
}
"""One input of each domain that fits its schema."""


LOOP = """\
default checked := false

checked if is_number(input.request.gpu_shares)

deny contains {"path": "x", "args": {}} if {
	input.request.gpu_shares == 7
	many := split(input.request.namespace, "-")
	some a in many
	some b in many
	some c in many
	some d in many
	some e in many
	a != b
	c != d
	e == "never"
}
"""
EATER = """\
default checked := false

checked if is_number(input.request.gpu_shares)

deny contains {"path": "x", "args": {}} if {
	input.request.gpu_shares == 8
	many := split(input.request.namespace, "-")
	all := [concat("", [a, b, c, d]) | some a in many; some b in many; some c in many; some d in many]
	count(all) == 1
}
"""


def hostile(folder: Path) -> Loaded:
    """A tree with a rule that hardly ends and one that eats memory."""
    root = write(folder / "tree", files())
    for rule, body in {"admission/loop": LOOP, "admission/eater": EATER}.items():
        extra(folder / "own", rule, body)
    return load_tree(root, [folder / "own"])


def asked(shares: int, words: int) -> dict[str, Any]:
    """7 shares make the one loop over so many words, 8 shares the other eat."""
    found = admission_input(shares)
    found["request"]["namespace"] = "-".join(["w"] * words)
    return found


def looping(seed: int = 0) -> dict[str, Any]:
    return asked(7, 100 + seed)


def eating() -> dict[str, Any]:
    return asked(8, 60)
