"""Step 3: facts to the policy's input. Pure."""

from __future__ import annotations

from core.inputs import GatewayConfig, GatewayFacts, GatewayInput, GatewayRequest, ModelFact, PrincipalFact, mandatory
from core.names import ModelRef
from core.principal import Principal


def build_input(
    *,
    now_unix: int,
    route: str,
    ref: ModelRef,
    purpose: str | None,
    principal: Principal,
    principal_ref: str,
    model: ModelFact | None,
    config: GatewayConfig,
) -> GatewayInput:
    """The input of the domain `gateway`. The prompt is not in it, and the caller only as a reference."""
    who = PrincipalFact.of(principal, principal_ref)
    request = GatewayRequest(route=route, model=ref.name, version=ref.version, purpose=purpose, principal=who)
    return GatewayInput(
        now_unix=now_unix,
        mandatory=mandatory("gateway"),
        request=request,
        facts=GatewayFacts(model=model),
        config=config,
    )
