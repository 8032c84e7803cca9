"""The rules as people and reports see them: read from each rule's METADATA comment (regorus has no `rego.metadata`).

# METADATA
# title: GPU quota
# description: A team holds no more GPU shares than its quota.
# custom:
#   severity: high
#   message: "{team} asks for {asked} GPUs; {used} of {limit} are used"
#   messages: {no_team: "…"}          by args.reason; optional
#   remediation: Ask for a larger quota or delete a workload.
#   remediations: {no_team: "…"}      by args.reason; optional
#   units: {asked: gpu}               args that are GPU shares; optional
#   controls: [eu-ai-act/15]
#   budget_us: 2000                   microseconds that it may take (policies/cost.py); optional
package portcullis.rules.admission["gpu-quota"]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core import yamlread
from core.decision import MANDATORY
from core.errors import BadInput

Severity = Literal["low", "medium", "high", "critical"]
Line = Annotated[str, Field(min_length=1, max_length=1_000)]


class _Custom(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    severity: Severity
    message: Line
    messages: dict[str, Line] = {}
    remediation: Line
    remediations: dict[str, Line] = {}
    units: dict[str, Literal["gpu"]] = {}
    controls: list[Line]
    budget_us: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class _Metadata(BaseModel):
    """OPA's own annotations are let through; the ones below must be there."""

    model_config = ConfigDict(extra="ignore", strict=True)

    title: Line
    description: Line
    scope: Literal["package"] = "package"
    custom: _Custom


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `path` is its file in the tree; `mandatory` whether its domain denies without it."""

    id: str
    domain: str
    title: str
    description: str
    severity: Severity
    message: str
    remediation: str
    path: str
    messages: Mapping[str, str] = field(default_factory=dict)
    remediations: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    mandatory: bool = False
    budget_us: int | None = None

    def bears_on(self, control: str | None) -> bool:
        """Whether one of its controls is this one or belongs to this framework; every rule when None."""
        return control is None or any(own == control or own.startswith(f"{control}/") for own in self.controls)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "controls": list(self.controls)}


@dataclass(frozen=True)
class Catalogue:
    by_id: Mapping[str, Rule]

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> Catalogue:
        return cls({rule.id: rule for rule in sorted(rules, key=lambda rule: rule.id)})

    def rules(self) -> list[Rule]:
        """Every rule, by id."""
        return list(self.by_id.values())

    def get(self, rule_id: str) -> Rule | None:
        return self.by_id.get(rule_id)


def read_rule(path: str, text: str, rule_id: str) -> Rule:
    """The rule `rule_id` from its module's METADATA. BadInput names the field that is missing or wrong."""
    comment, line = metadata_comment(text)
    if comment is None:
        raise BadInput("no METADATA comment before the package line", where=f"{path}:1")
    place = f"{path}:{line}"
    try:
        document: Any = yamlread.load(comment, where=place)
        metadata = _Metadata.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "METADATA"
        raise BadInput(f"METADATA: {key}: {first['msg']}", where=place) from error
    domain = rule_id.partition("/")[0]
    return Rule(
        id=rule_id,
        domain=domain,
        title=metadata.title,
        description=metadata.description,
        severity=metadata.custom.severity,
        message=metadata.custom.message,
        remediation=metadata.custom.remediation,
        path=path,
        messages=metadata.custom.messages,
        remediations=metadata.custom.remediations,
        units=metadata.custom.units,
        controls=tuple(metadata.custom.controls),
        mandatory=any(rule_id in rules for rules in MANDATORY.values()),
        budget_us=metadata.custom.budget_us,
    )


def metadata_comment(text: str) -> tuple[str | None, int]:
    """The YAML of the METADATA comment that belongs to the package, and its line; None when there is none.

    It must be the block of comment lines right before `package`, as OPA reads it.
    """
    lines = text.splitlines()
    package = next((i for i, line in enumerate(lines) if line.startswith("package ")), len(lines))
    start = package
    while start > 0 and lines[start - 1].startswith("#"):
        start -= 1
    block = lines[start:package]
    marks = [i for i, line in enumerate(block) if line.strip() == "# METADATA"]
    if not marks:
        return None, 0
    yaml = [line.removeprefix("#").removeprefix(" ") for line in block[marks[-1] + 1 :]]
    return "\n".join(yaml) + "\n", start + marks[-1] + 1
