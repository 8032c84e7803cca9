"""The door: read → gather → decide → record and answer, for one AdmissionReview.

Whatever goes wrong after the review's uid was read ends as a denial that is recorded. What cannot even be read that far is
raised (BadInput, TooLarge), for there is nobody to answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from admission import decide, refusal, review, standing
from admission.decide import Asked
from admission.ledger import QuotaLedger, Reservation
from admission.review import Review
from admission.standing import Change, ObjectKey, Standing
from core.canonical import sha256
from core.decision import Decision
from core.errors import BadInput, Conflict, PortcullisError, Unavailable
from core.inputs import AdmissionConfig, AdmissionInput, ModelFact, as_json
from core.names import ModelRef
from core.ports import Clock, Commitments, Deployments, Engine, ModelRegistry, OperatorConfig, Placed, Recorder

log = logging.getLogger("portcullis.admission")

TRIES = 24
"""How often a request is decided anew because the ledger moved; then it is denied as busy."""
GATHER_SECONDS = 5.0
MAX_NAMED = 50
"""How many model versions a record lists; a workload that names more is listed by its first ones."""
BIG_BODY = 256 * 1024
"""Above this a body is read in a thread, so that other requests go on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one review. `decision` is None for a retry, which gets the answer that was given before."""

    answer: dict[str, Any]
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Judged:
    """One round of gather and decide."""

    input: Mapping[str, Any]
    typed: AdmissionInput
    decision: Decision
    change: Change
    standing: Standing
    key: ObjectKey
    tenant: str
    team: str
    actor: str
    runs: tuple[ModelRef, ...] | None
    """The model versions that the workload runs once this is carried out; None where the request says nothing about it."""
    covered: bool
    """An owner stands for it: it is no deployment of its own."""

    @property
    def label(self) -> str:
        """`Deployment/chat`. One that the API server has yet to name goes by its uid, so that no two are taken for one."""
        return f"{self.typed.request.kind}/{self.key.name}"


class AdmissionService:
    """Composed in `compose.py`. `tenant` is whose records it writes for namespaces that belong to no tenant."""

    def __init__(
        self,
        *,
        engine: Engine,
        config: OperatorConfig,
        models: ModelRegistry,
        recorder: Recorder,
        commitments: Commitments,
        ledger: QuotaLedger,
        deployments: Deployments,
        clock: Clock,
        tenant: str,
    ) -> None:
        self._engine = engine
        self._config = config
        self._models = models
        self._recorder = recorder
        self._commitments = commitments
        self._ledger = ledger
        self._deployments = deployments
        self._clock = clock
        self._tenant = tenant
        # One team's requests queue inside this process; between processes the compare-and-swap decides.
        self._queues: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def review(self, data: bytes) -> dict[str, Any]:
        """The AdmissionReview that answers the one in `data`. BadInput or TooLarge where no uid can be read."""
        return (await self.outcome(data)).answer

    async def outcome(self, data: bytes, claims: Sequence[Any] = ()) -> Outcome:
        """As `review`, with the decision behind the answer. `claims`: those that a workload may name (`admission.charge.charge`)."""
        document = await asyncio.to_thread(review.parse, data) if len(data) > BIG_BODY else review.parse(data)
        uid = review.uid_of(document)
        if uid is None:
            review.read(document)
            raise BadInput("is missing", where="request.uid")
        try:
            return await self._decided(review.read(document), sha256(data), claims)
        except PortcullisError as error:
            return await self._refused(uid, document, error)
        except Exception as error:
            log.error("a review ended in %s", refusal.place_of(error))  # noqa: TRY400  (a traceback quotes what was sent)
            return await self._refused(uid, document, error)

    async def _decided(self, asking: Review, body_digest: str, claims: Sequence[Any]) -> Outcome:
        if not asking.dry_run:
            known = await self._ledger.answered(asking.uid, body_digest)
            if known is not None:
                return Outcome(known, None)
        judged, reservation = await self._judge_and_reserve(asking, claims)
        answer = _answer(asking.uid, judged.decision)
        if not asking.dry_run:
            await self._record(asking, judged, reservation)
            await self._settle(asking.uid, body_digest, answer)
        return Outcome(answer, judged.decision)

    async def _judge_and_reserve(self, asking: Review, claims: Sequence[Any]) -> tuple[Judged, Reservation | None]:
        """Gather, decide and reserve, again and again while others change the ledger in between."""
        for attempt in range(TRIES):
            config, asked = await self._configuration(asking, claims)
            team = (config.tenant or self._tenant, config.team or "")
            queue = self._queues.setdefault(team, asyncio.Lock())
            async with queue:
                judged = await self._judge(asking, config, asked)
                if not judged.decision.allow or asking.dry_run:
                    return judged, None
                try:
                    return judged, await self._ledger.reserve(
                        judged.key,
                        judged.change,
                        judged.standing,
                        tenant=judged.tenant,
                        team=judged.team,
                        request_uid=asking.uid,
                    )
                except Conflict:
                    log.info("the ledger moved; deciding again (try %d)", attempt + 1)
            await asyncio.sleep(random.uniform(0, 0.002 * (attempt + 1)))  # noqa: S311  (spreads replicas, keeps no secret)
        raise Conflict(f"the team's quota changed {TRIES} times while this was decided")

    async def _configuration(self, asking: Review, claims: Sequence[Any]) -> tuple[AdmissionConfig, Asked]:
        """What the request asks for by the table of accelerators, and the configuration that concerns it."""
        try:
            async with asyncio.timeout(GATHER_SECONDS):
                asked = decide.asked(asking, await self._config.accelerators(), claims)
                config = await self._config.admission(
                    asking.namespace, subject=asking.subject, caller=asking.username, models=decide.references(asked)
                )
                return config, asked
        except TimeoutError as error:
            raise Unavailable("the configuration did not answer in time") from error

    async def _judge(self, asking: Review, config: AdmissionConfig, asked: Asked) -> Judged:
        """One round: the facts, then the engine."""
        tenant, team = config.tenant or self._tenant, config.team or ""
        key = standing.key_of(asking)
        try:
            async with asyncio.timeout(GATHER_SECONDS):
                asked = await self._scaled(asking, asked, key)
                found = await self._standing(asking, tenant, team, key)
                facts = await self._model_facts(config.tenant, asked)
                actor = await self._commitments.ref(tenant, asking.username)
        except TimeoutError as error:
            raise Unavailable("the facts for the decision did not come in time") from error
        change = standing.change(asking, asked, found, tenant=tenant, team=team, config=config)
        typed = decide.build_input(
            asking,
            asked,
            principal=decide.principal(asking, ref=actor, tenant=tenant, config=config),
            gpu_shares=change.asked,
            used_shares=change.used,
            models=facts,
            config=config,
            now_unix=self._clock.now_unix(),
        )
        document = as_json(typed)
        decision = await self._engine.decide_async("admission", document)
        runs, covered = standing.runs(asking, asked, found, config), standing.covered(asking, found, config)
        return Judged(document, typed, decision, change, found, key, tenant, team, actor, runs, covered)

    async def _scaled(self, asking: Review, asked: Asked, key: ObjectKey) -> Asked:
        """A Scale and an autoscaler name no resources, so the ledger says what the pods hold that they would add."""
        if asking.subresource == "scale":
            held = await self._ledger.holding(key)
            return standing.scaled(asking, held) if held is not None and held.pod_shares > 0 else asked
        target = standing.target_of(asking)
        if target is None or asked.accelerators_found:
            return asked
        held = await self._ledger.holding(target[0])
        return standing.grown(held, target[1]) if held is not None and held.pod_shares > 0 else asked

    async def _standing(self, asking: Review, tenant: str, team: str, key: ObjectKey) -> Standing:
        uid = asking.metadata.get("uid")
        owner = decide.controller_owner(asking)
        return await self._ledger.standing(tenant, team, key, uid=uid if isinstance(uid, str) else None, owner_uid=owner)

    async def _model_facts(self, tenant: str | None, asked: Asked) -> list[ModelFact] | None:
        """The registered ones among the named models; None (which denies) when the registry does not answer."""
        if tenant is None:
            return []
        try:
            facts = [await self._models.model(tenant, ref) for ref in decide.references(asked)]
        except Unavailable as error:
            log.warning("the model registry does not answer: %s", error.message)
            return None
        return [fact for fact in facts if fact is not None]

    async def _record(self, asking: Review, judged: Judged, reservation: Reservation | None) -> None:
        """Deployment and evidence, or nothing happens: what was reserved and placed is taken back when one cannot be written."""
        manifests = [fact.manifest_digest for fact in judged.typed.facts.models or [] if fact.manifest_digest]
        digests = {f"manifest.{index}" if index else "manifest": value for index, value in enumerate(manifests)}
        named = sorted({f"{use.name}@{use.version}" for use in judged.typed.request.models if use.name and use.version})
        details = {
            "operation": asking.operation,
            "shares": judged.change.asked,
            "used_before": judged.change.used,
            **({"models": named[:MAX_NAMED]} if named or judged.runs is not None else {}),
            **({"gone": True} if standing.going(asking) else {}),
            **({"covered": True} if judged.covered else {}),
        }
        placed: Placed | None = None
        try:
            placed = await self._place(asking, judged)
            await self._recorder.decision(
                "admission",
                judged.decision,
                judged.input,
                actor=judged.actor,
                tenant=judged.tenant,
                subject=f"{asking.namespace}/{judged.label}",
                digests=digests,
                details=details,
            )
        except BaseException:
            await asyncio.shield(self._take_back(reservation, placed))
            raise

    async def _place(self, asking: Review, judged: Judged) -> Placed | None:
        """Keeps which versions the workload runs from now on, where it is admitted and says so."""
        if not judged.decision.allow or judged.runs is None:
            return None
        return await self._deployments.place(
            judged.tenant,
            environment=asking.namespace,
            workload=judged.label,
            models=judged.runs,
            actor=judged.actor,
            decision_id=judged.decision.decision_id,
            # A CREATE of a name that is taken is refused after us, and what runs there goes on.
            replaces=asking.operation != "CREATE",
        )

    async def _take_back(self, reservation: Reservation | None, placed: Placed | None) -> None:
        try:
            if placed is not None:
                await self._deployments.take_back(placed)
        finally:
            if reservation is not None:
                await self._ledger.undo(reservation)

    async def _settle(self, uid: str, body_digest: str, answer: dict[str, Any]) -> None:
        """A retry that finds no answer is decided again and charged to the same row, so a failure here loses nothing."""
        try:
            await self._ledger.settle(uid, body_digest, answer)
        except (Conflict, Unavailable) as error:
            log.warning("an answer could not be kept for a retry: %s", error.message)

    async def _refused(self, uid: str, document: Mapping[str, Any], error: Exception) -> Outcome:
        """The recorded denial that an error ends in."""
        decision = refusal.refuse(error)
        message = refusal.message_of(decision)
        request = document.get("request")
        request = request if isinstance(request, dict) else {}
        if request.get("dryRun") is not True:
            try:
                await self._record_refusal(request, decision)
            except Exception as failure:
                log.error("a denial could not be recorded: %s", refusal.place_of(failure))  # noqa: TRY400
                message += "; this denial could not be recorded"
        code = refusal.status_of(error)
        answer = review.answer(
            uid, allowed=False, code=code, message=message, annotations={"decision-id": decision.decision_id}
        )
        return Outcome(answer, decision)

    async def _record_refusal(self, request: Mapping[str, Any], decision: Decision) -> None:
        user = request.get("userInfo")
        name = user.get("username") if isinstance(user, dict) else None
        person = name[:1024] if isinstance(name, str) and name else "unknown"
        kind, label = request.get("kind"), request.get("name")
        subject = (
            f"{_short(request.get('namespace'))}/{_short(kind.get('kind') if isinstance(kind, dict) else None)}/{_short(label)}"
        )
        actor = await self._commitments.ref(self._tenant, person)
        await self._recorder.decision("admission", decision, {}, actor=actor, tenant=self._tenant, subject=subject)

    async def ready(self) -> None:
        """Raises Unavailable when a decision could not be made now."""
        await self._ledger.ping()


def _short(value: Any) -> str:
    return value[:253] if isinstance(value, str) else ""


def _answer(uid: str, decision: Decision) -> dict[str, Any]:
    annotations = {
        "decision-id": decision.decision_id,
        "policy-revision": decision.policy_revision,
        "config-revision": decision.config_revision,
    }
    warnings = [f"{warning.rule}: {warning.message or warning.path}" for warning in decision.warnings]
    message = "" if decision.allow else refusal.message_of(decision)
    return review.answer(uid, allowed=decision.allow, message=message, warnings=warnings, annotations=annotations)
