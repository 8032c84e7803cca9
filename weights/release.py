"""Whether a principal gets the key of a sealed folder: facts, decision, record, and only then the key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.decision import Decision
from core.errors import Forbidden, SealBroken, Unavailable
from core.inputs import PrincipalFact, WeightsFacts, WeightsInput, WeightsRequest, as_json, mandatory
from core.names import ModelRef, check_digest
from core.ports import Clock, Commitments, Engine, ModelRegistry, OperatorConfig, Recorder
from core.principal import Principal
from weights.keys import KeyProvider, WrappedKey

FACTS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Released:
    """The recorded decision; `key` only where it allows. The key is not part of the text form."""

    decision: Decision
    key: bytes | None = field(default=None, repr=False)


class KeyRelease:
    def __init__(
        self,
        *,
        engine: Engine,
        config: OperatorConfig,
        registry: ModelRegistry,
        recorder: Recorder,
        commitments: Commitments,
        keys: KeyProvider,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._config = config
        self._registry = registry
        self._recorder = recorder
        self._commitments = commitments
        self._keys = keys
        self._clock = clock

    async def release(
        self, principal: Principal, ref: ModelRef, manifest_digest: str, wrapped: Sequence[WrappedKey]
    ) -> Released:
        """The key of the folder with this manifest, for this model. A denial is a value; it is on record like a release.

        Raises EvidenceUnavailable (no record, no key), Unavailable when facts cannot be had, SealBroken when none of
        the wrapped keys is this manifest's.
        """
        check_digest(manifest_digest, "manifest digest")
        actor = await self._commitments.ref(principal.tenant, principal.id)
        document = await self._gather(principal, actor, ref, manifest_digest)
        decision = await self._engine.decide_async("weights", document)
        await self._recorder.decision(
            "key_release",
            decision,
            document,
            actor=actor,
            tenant=principal.tenant,
            subject=str(ref),
            digests={"manifest": manifest_digest},
            details={"keks": [f"{item.provider}/{item.kek}" for item in wrapped[:16]]},
        )
        if not decision.allow:
            return Released(decision)
        return Released(decision, await self._unwrap(wrapped, manifest_digest))

    async def _gather(self, principal: Principal, actor: str, ref: ModelRef, manifest_digest: str) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(FACTS_SECONDS):
                model = await self._registry.model(principal.tenant, ref)
                config = await self._config.weights(principal.tenant, ref)
        except TimeoutError as error:
            raise Unavailable("the facts for the decision did not come in time") from error
        request = WeightsRequest(
            action="release",
            model=ref.name,
            version=ref.version,
            manifest_digest=manifest_digest,
            principal=PrincipalFact.of(principal, actor),
        )
        return as_json(
            WeightsInput(
                now_unix=self._clock.now_unix(),
                mandatory=mandatory("weights"),
                request=request,
                facts=WeightsFacts(model=model),
                config=config,
            )
        )

    async def _unwrap(self, wrapped: Sequence[WrappedKey], manifest_digest: str) -> bytes:
        """With the first of the keys that this provider has."""
        for item in wrapped:
            if item.provider == self._keys.name:
                return await self._keys.unwrap(item, manifest_digest)
        if not wrapped:
            raise SealBroken("no wrapped key was given", where="keys")
        raise Forbidden(f"the folder's key is wrapped by {wrapped[0].provider}, which is not configured here")
