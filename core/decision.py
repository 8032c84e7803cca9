"""The value every door asks for: may this happen, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Domain = Literal["admission", "gateway", "weights", "lineage", "bundle"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)

MANDATORY: Mapping[Domain, tuple[str, ...]] = {
    "admission": (
        "admission/approved-images",
        "admission/approved-model",
        "admission/encrypted-weights",
        "admission/frozen",
        "admission/gpu-quota",
        "admission/namespace-isolation",
    ),
    "gateway": ("gateway/frozen", "gateway/model-access", "gateway/purpose"),
    "weights": ("weights/frozen", "weights/key-release"),
    "lineage": ("lineage/approval",),
    "bundle": ("bundle/activation", "bundle/approval"),
}
"""Rules without which a domain denies. A bundle can add rules, never take one of these away."""

STOPS: frozenset[str] = frozenset({"admission/frozen", "gateway/frozen", "weights/frozen"})
"""The emergency stop: mandatory rules that no mode and no exemption can weaken."""

NEEDS_GRANT: frozenset[Domain] = frozenset({"gateway", "weights", "lineage", "bundle"})
"""Domains in which the absence of a violation is not enough: a mandatory rule must grant."""

Mode = Literal["enforce", "warn", "dryrun", "off", "exempted"]


@dataclass(frozen=True, slots=True)
class Violation:
    """One reason against. `rule`, `mode`, `path`, `args` come from the engine; the rest is made in Python from METADATA."""

    rule: str
    mode: Mode
    path: str
    args: Mapping[str, Any]
    severity: str = "high"
    message: str = ""
    remediation: str = ""
    controls: tuple[str, ...] = ()
    exemption: str = ""
    """The id of the permission that covers it, where the mode is `exempted`."""

    def as_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "mode": self.mode,
            **({"exemption": self.exemption} if self.exemption else {}),
            "path": self.path,
            "args": dict(self.args),
            "severity": self.severity,
            "message": self.message,
            "remediation": self.remediation,
            "controls": list(self.controls),
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What an engine answered, checked against the mandatory list, with messages."""

    domain: Domain
    allow: bool
    evaluated: tuple[str, ...]
    grants: tuple[str, ...]
    violations: tuple[Violation, ...]
    warnings: tuple[Violation, ...]
    obligations: Mapping[str, Any]
    decision_id: str
    policy_revision: str
    config_revision: str
    engine: str
    input_digest: str
    duration_us: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    """The engine's own document, as it came; what `evidence replay` compares. Empty when no engine answered."""

    @property
    def reason(self) -> str:
        """Every violation's message in one line, for an API's error text."""
        return "; ".join(v.message or v.rule for v in self.violations)

    @property
    def explanation(self) -> str:
        """Every reason with what to do about it, for whoever was refused."""
        return "; ".join(
            v.message + (f" To do: {v.remediation}" if v.remediation else "") for v in self.violations if v.message
        )

    @property
    def code(self) -> str:
        """The rule to name where only one fits: the first violation's."""
        return self.violations[0].rule if self.violations else ""

    def as_json(self) -> dict[str, Any]:
        """The decision document that doors pass on."""
        return {
            "decision_id": self.decision_id,
            "domain": self.domain,
            "allow": self.allow,
            "evaluated": list(self.evaluated),
            "grants": list(self.grants),
            "violations": [v.as_json() for v in self.violations],
            "warnings": [v.as_json() for v in self.warnings],
            "obligations": dict(self.obligations),
            "policy_revision": self.policy_revision,
            "config_revision": self.config_revision,
            "engine": self.engine,
            "input_digest": self.input_digest,
            "duration_us": self.duration_us,
        }
