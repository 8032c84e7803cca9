"""Facts to the policy's input, for the domain `lineage`. Pure."""

from __future__ import annotations

from core.inputs import (
    ApproverFact,
    LineageConfig,
    LineageFacts,
    LineageInput,
    LineageRequest,
    ModelFact,
    PrincipalFact,
    mandatory,
)
from core.principal import Principal
from lineage.statements import Approval


def build_input(
    approval: Approval,
    *,
    now_unix: int,
    principal: Principal,
    principal_ref: str,
    approver: ApproverFact | None,
    model: ModelFact | None,
    config: LineageConfig,
) -> LineageInput:
    who = PrincipalFact.of(principal, principal_ref)
    request = LineageRequest(
        action="approve",
        model=approval.model.name,
        version=approval.model.version,
        subject_digest=approval.manifest_digest,
        principal=who,
    )
    return LineageInput(
        now_unix=now_unix,
        mandatory=mandatory("lineage"),
        request=request,
        facts=LineageFacts(model=model, approver=approver),
        config=config,
    )
