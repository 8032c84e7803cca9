"""Whether a principal gets the key of a sealed folder: facts, decision, record, and only then the key."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.decision import Decision
from core.errors import EvidenceUnavailable, Forbidden, NotFound, PortcullisError, SealBroken, Unavailable
from core.inputs import PrincipalFact, WeightsFacts, WeightsInput, WeightsRequest, as_json, mandatory
from core.names import ModelRef, check_digest
from core.ports import Clock, Commitments, Engine, ModelRegistry, OperatorConfig, Recorder
from core.principal import Principal
from core.record import Entry
from weights.keys import KeyProvider, WrappedKey

FACTS_SECONDS = 5.0
KEYS_SECONDS = 10.0
MAX_NAMED = 16
UNRESOLVED = "unresolved"
"""Who asked, where not even that could be found out."""


@dataclass(frozen=True, slots=True)
class Released:
    """The recorded decision; `key` only where it allows. The key is not part of the text form."""

    decision: Decision
    key: bytes | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Asked:
    principal: Principal
    ref: ModelRef
    manifest_digest: str
    actor: str = UNRESOLVED
    step: str = "decide"
    """How far it came: `decide`, `record`, `unwrap`."""
    decision_id: str | None = None

    @property
    def digests(self) -> dict[str, str]:
        return {"manifest": self.manifest_digest}


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
        self._recording: set[asyncio.Task[None]] = set()

    async def release(
        self, principal: Principal, ref: ModelRef, manifest_digest: str, wrapped: Sequence[WrappedKey]
    ) -> Released:
        """The key of the folder with this manifest, for this model. A denial is a value; it is on record like a release.

        1. who asks, as a reference; 2. the facts, under a deadline; 3. the decision; 4. the record of it; 5. the key.
        What stops one of these is on record too, be it an error of ours or another, or that nobody waits any more, and raised:
        Unavailable when facts or the provider do not answer, NotFound or Forbidden for keys that are not here, SealBroken when
        none is this manifest's. EvidenceUnavailable: no record, no key.
        """
        check_digest(manifest_digest, "manifest digest")
        asked = _Asked(principal, ref, manifest_digest)
        try:
            return await self._release(asked, wrapped)
        except BaseException as error:
            if not (asked.step == "record" and isinstance(error, EvidenceUnavailable)):
                await self._shielded(self._record_failure(asked, error))
            raise

    async def _release(self, asked: _Asked, wrapped: Sequence[WrappedKey]) -> Released:
        document = await self._gather(asked)
        decision = await self._engine.decide_async("weights", document)
        asked.step, asked.decision_id = "record", decision.decision_id
        await self._recorder.decision(
            "key_release",
            decision,
            document,
            actor=asked.actor,
            tenant=asked.principal.tenant,
            subject=str(asked.ref),
            digests=asked.digests,
            details={"keks": [f"{item.provider}/{item.kek}" for item in wrapped[:MAX_NAMED]]},
        )
        if not decision.allow:
            return Released(decision)
        asked.step = "unwrap"
        return Released(decision, await self._unwrap(wrapped, asked.manifest_digest))

    async def _shielded(self, work: Coroutine[Any, Any, None]) -> None:
        """Goes on when we are cancelled (again) meanwhile: what is on record must not depend on who still waits."""
        task = asyncio.create_task(work)
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)
        await asyncio.shield(task)

    async def _record_failure(self, asked: _Asked, error: BaseException) -> None:
        """A key was asked for, nobody denied it, and none left: on record as `access`, linked to the decision where there is one."""
        other = "cancelled" if isinstance(error, asyncio.CancelledError) else "internal"  # its text may hold anything
        code = error.code if isinstance(error, PortcullisError) else other
        told = {"action": "key_release", "outcome": "not_released", "code": code, "step": asked.step}
        if asked.decision_id is not None:
            told["decision_id"] = asked.decision_id
        entry = Entry("access", asked.actor, asked.principal.tenant, str(asked.ref), digests=asked.digests, details=told)
        await self._recorder.event(entry)

    async def _gather(self, asked: _Asked) -> Mapping[str, Any]:
        tenant, ref = asked.principal.tenant, asked.ref
        try:
            async with asyncio.timeout(FACTS_SECONDS):
                asked.actor = await self._commitments.ref(tenant, asked.principal.id)
                model = await self._registry.model(tenant, ref)
                config = await self._config.weights(asked.principal, ref)
        except TimeoutError as error:
            raise Unavailable("the facts for the decision did not come in time") from error
        request = WeightsRequest(
            action="release",
            model=ref.name,
            version=ref.version,
            manifest_digest=asked.manifest_digest,
            principal=PrincipalFact.of(asked.principal, asked.actor),
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
        """With the first of the keys that is here: a folder may be wrapped by several, of several providers, old and new."""
        mine = [item for item in wrapped if item.provider == self._keys.name]
        if not wrapped:
            raise SealBroken("no wrapped key was given", where="keys")
        if not mine:
            raise Forbidden(f"the folder's key is wrapped by {wrapped[0].provider[:80]}, which is not configured here")
        gone: NotFound | None = None
        for item in mine:
            try:
                async with asyncio.timeout(KEYS_SECONDS):
                    return await self._keys.unwrap(item, manifest_digest)
            except NotFound as error:
                gone = error
            except TimeoutError as error:
                raise Unavailable("the key provider did not answer in time") from error
        raise gone or NotFound("the folder's key-encryption key is not here", where="keys")
