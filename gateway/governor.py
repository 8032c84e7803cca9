"""Steps 2 to 4 of a call: who, what facts, may it, and on record before anything is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from core.decision import Decision
from core.errors import Unavailable
from core.inputs import as_json
from core.names import ModelRef
from core.ports import Clock, Commitments, Engine, ModelRegistry, OperatorConfig, Recorder
from core.principal import Principal
from core.record import Entry
from gateway.decide import build_input
from gateway.limits import RequestLimiter, Verdict

FACTS_SECONDS = 2.0


class Authenticator(Protocol):
    async def authenticate(self, token: str) -> Principal: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an allowed call. `ended`: complete, disconnected (by the client), failed (by the upstream)."""

    status: int
    ended: str
    response_bytes: int
    response_digest: str
    usage: Mapping[str, int]


class Governor:
    def __init__(
        self,
        *,
        engine: Engine,
        models: ModelRegistry,
        config: OperatorConfig,
        recorder: Recorder,
        commitments: Commitments,
        clock: Clock,
        limiter: RequestLimiter,
    ) -> None:
        self._engine = engine
        self._models = models
        self._config = config
        self._recorder = recorder
        self._commitments = commitments
        self._clock = clock
        self._limiter = limiter

    async def limit(self, principal: Principal) -> Verdict:
        """Charges one call to the caller's key. Unavailable when the configuration cannot be read."""
        key = principal.key_id or principal.id
        async with _deadline():
            per_minute = await self._config.requests_per_minute(principal.tenant, principal.team, key)
        return self._limiter.take(f"{principal.tenant}/{key}", per_minute)

    async def ref_of(self, principal: Principal) -> str:
        async with _deadline():
            return await self._commitments.ref(principal.tenant, principal.id)

    async def decide(
        self, principal: Principal, route: str, ref: ModelRef, purpose: str | None
    ) -> tuple[Decision, dict[str, object]]:
        """The decision and the input it was made from, not recorded yet. Unavailable when facts cannot be had in time."""
        async with _deadline():
            principal_ref = await self._commitments.ref(principal.tenant, principal.id)
            model = await self._models.model(principal.tenant, ref)
            config = await self._config.gateway(principal, ref)
        document = as_json(
            build_input(
                now_unix=self._clock.now_unix(),
                route=route,
                ref=ref,
                purpose=purpose,
                principal=principal,
                principal_ref=principal_ref,
                model=model,
                config=config,
            )
        )
        return await self._engine.decide_async("gateway", document), document

    async def record_intent(
        self, principal: Principal, route: str, ref: ModelRef, decision: Decision, document: Mapping[str, object]
    ) -> None:
        """Before the call. EvidenceUnavailable: no record, no call."""
        fact = document.get("facts")
        model = fact.get("model") if isinstance(fact, Mapping) else None
        manifest = model.get("manifest_digest") if isinstance(model, Mapping) else None
        await self._recorder.decision(
            "inference.intent",
            decision,
            document,
            actor=await self.ref_of(principal),
            tenant=principal.tenant,
            subject=str(ref),
            digests={"manifest": manifest} if isinstance(manifest, str) else {},
            details={"route": route},
        )

    async def record_outcome(self, principal: Principal, ref: ModelRef, decision: Decision, outcome: Outcome) -> None:
        """After the call; linked to the intent by the decision's id."""
        await self._recorder.event(
            Entry(
                "inference.outcome",
                await self.ref_of(principal),
                principal.tenant,
                str(ref),
                digests={"response": outcome.response_digest},
                details={
                    "decision_id": decision.decision_id,
                    "status": outcome.status,
                    "ended": outcome.ended,
                    "response_bytes": outcome.response_bytes,
                    **{name: outcome.usage[name] for name in sorted(outcome.usage)},
                },
            )
        )

    async def ready(self) -> None:
        """Unavailable (or ConfigError) when the configuration cannot be read."""
        async with _deadline():
            await self._config.accelerators()


class _deadline:  # noqa: N801  # reads as a statement
    """`asyncio.timeout` that ends in our own error."""

    async def __aenter__(self) -> None:
        self._timeout = asyncio.timeout(FACTS_SECONDS)
        await self._timeout.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self._timeout.__aexit__(*exc)  # type: ignore[arg-type]  # handed through as it came
        except TimeoutError as error:
            raise Unavailable(f"what the decision needs to know could not be read within {FACTS_SECONDS:g} s") from error
