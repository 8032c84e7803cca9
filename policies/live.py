"""The engine of a door that goes on running: it follows what the installation decides shall decide, without losing a call.

A task of its own looks twice a second at the state in the database (`policies.rollout`) and at the bundle file that the settings
name; no decision waits for a look. What cannot be loaded, is not signed as asked, or is older than what ran changes nothing: the
last good rules go on deciding, an alert is recorded, and it is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from core.decision import Decision, Domain
from core.errors import Broken, ConfigError, Conflict, PortcullisError, Unavailable
from core.ids import uuid7
from core.ports import Clock, Recorder
from core.record import Entry, RecordKind
from core.settings import Policy
from policies import distribution
from policies.bundle_keys import key_id
from policies.catalogue import Catalogue
from policies.check import Loaded
from policies.distribution import Distribution
from policies.engine import Engine, configured, distribution_of, engine_over, load_policy, verify_key
from policies.proposals import content_of
from policies.rollout import Difference, Rollouts, State, chosen, compare, tenant_of
from policies.running import Held, Plan, Published, Remembered, RunningRules
from storage.database import Database

log = logging.getLogger("portcullis.policies")
EVERY_SECONDS = 0.5
LOOK_SECONDS = 30.0
"""A look that takes longer is given up; the next one begins anew."""
RETRY_SECONDS = 15.0
"""What could not be loaded is tried again after this long, or when it changes."""
MAX_DIFFERENCES = 200
"""Differing decisions of one trial that each process records one by one; all of them are counted."""
MAX_WAITING = 500
"""Decisions of a shadow trial that wait to be compared; more are not compared."""
SYSTEM = "portcullis"
"""The installation itself, as the actor of what no person did."""

Key = tuple[object, ...]


class Keeper(Recorder, Protocol):
    """The recorder as it is needed here: it also keeps the bundles that decisions are recomputed from."""

    def keep_bundle(self, revision: str, files: Mapping[str, bytes]) -> None: ...


class LiveEngine:
    """`core.ports.Engine` over whatever runs. `open` it first, `close` it when done."""

    def __init__(
        self,
        policy: Policy,
        database: Database,
        *,
        recorder: Keeper,
        clock: Clock,
        tenant: str,
        rules: RunningRules | None = None,
        every_seconds: float | None = EVERY_SECONDS,
    ) -> None:
        """`every_seconds` None: it looks only when `refresh` is called."""
        self.rules = RunningRules(()) if rules is None else rules
        self._policy = policy
        self._database = database
        self._rollouts = Rollouts(database, clock)
        self._recorder = recorder
        self._tenant = tenant
        self._every = every_seconds
        self._worker = uuid7()
        self._lock = asyncio.Lock()
        self._plan: Plan | None = None
        self._judge_of: tuple[Engine, Engine] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: asyncio.Queue[tuple[Plan, Domain, Mapping[str, Any], Decision]] = asyncio.Queue(MAX_WAITING)
        self._retry: dict[Key, float] = {}
        self._alerted: set[Key] = set()
        self._past = Remembered()
        self._failed: Counter[str] = Counter()

    async def open(self, *, repair: bool = False) -> LiveEngine:
        """Loads what runs, and follows it from then on.

        ConfigError, BadSignature, Broken or Unavailable when it cannot be loaded: a door without rules does not start. `repair`:
        then what decided before it is taken instead, so that people can put something else into effect.
        """
        state = await self._rollouts.state()
        try:
            base = await self._load(state.base)
        except PortcullisError as error:
            if not repair:
                raise
            log.error("policies: %s; judging by what decided before", error)  # noqa: TRY400
            base = await self._earlier(state, error)
        await self._run(state, base, self._key(state.base), await self._candidate(state, None))
        if self._every is not None:
            self._tasks = [asyncio.create_task(self._follow_forever()), asyncio.create_task(self._compare_forever())]
        return self

    # --- the port ----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def revision(self) -> str:
        return self.base.revision

    @property
    def catalogue(self) -> Catalogue:
        return self.base.catalogue

    @property
    def base(self) -> Engine:
        """The engine that decides now."""
        return self._now().base.engine

    @property
    def state(self) -> State:
        """What runs in this process."""
        return State() if self._plan is None else self._plan.state

    @property
    def trying(self) -> bool:
        """Whether a candidate is loaded in this process."""
        return self._plan is not None and self._plan.candidate is not None

    @property
    def memory(self) -> Remembered:
        """How often this process had decided the same before, whatever ran."""
        now = self.base.memory
        return Remembered(self._past.hits + now.hits, self._past.misses + now.misses)

    @property
    def failures(self) -> Mapping[str, int]:
        """Evaluations that gave no answer, by reason, whatever ran."""
        return self._failed + Counter(self.base.failures)

    @property
    def paused(self) -> bool:
        return self.base.paused

    async def published(self) -> Published:
        """What decides now, never a candidate, as the exact file that was checked when it was loaded."""
        held = self._now().base
        return await asyncio.to_thread(held.publish) if held.published is None else held.published

    async def configured(self) -> Loaded:
        """The rules that the settings name, whatever decides now."""
        return await asyncio.to_thread(configured, self._policy)

    async def probe(self, proposal: str) -> str:
        """Loads a proposal's bundle as this door would, and lets it go; its revision. Raises what would keep it from deciding."""
        held = await self._load(proposal)
        held.retire()
        return held.engine.revision

    def decide(self, domain: Domain, input: Mapping[str, Any]) -> Decision:
        """By what runs now, without a trial."""
        return self.base.decide(domain, input)

    async def decide_async(self, domain: Domain, input: Mapping[str, Any]) -> Decision:
        """By what runs now. A trial is judged by nobody but the rules that run: the domain `bundle` never sees a candidate."""
        plan = self._now()
        with contextlib.ExitStack() as used:
            # All at once: an engine that is retired meanwhile still answers what it was asked.
            base, *beside = [used.enter_context(held.used()) for held in plan.held]
            if domain == "bundle":
                return await self._judge(base).decide_async(domain, input)
            if not beside:
                return await base.decide_async(domain, input)
            if plan.state.stage == "shadow":
                decision = await base.decide_async(domain, input)
                self._offer(plan, domain, input, decision)
                return decision
            decision, other = await asyncio.gather(base.decide_async(domain, input), beside[0].decide_async(domain, input))
        kind = await self._compared(plan, domain, decision, other)
        # A candidate that fails decides for nobody: the rules that run have answered, and the failure counts against it.
        mine = chosen(plan.state.candidate, tenant_of(domain, input), plan.state.percent) and kind != "failed"
        return other if mine else decision

    def _judge(self, base: Engine) -> Engine:
        """Who decides about changes of rules: the rules that run, in this process, also where an OPA server decides the rest.

        Else a server that is behind could not be told by anybody what to run.
        """
        if self._policy.engine != "opa":
            return base
        if self._judge_of is None or self._judge_of[0] is not base:
            if self._judge_of is not None:
                self._judge_of[1].close()
            self._judge_of = base, engine_over(self._local(), base.loaded, None)
        return self._judge_of[1]

    def _now(self) -> Plan:
        if self._plan is None:
            raise ConfigError("the policies have not been loaded")
        return self._plan

    async def close(self) -> None:
        """Ends following and closes every engine; what was counted and not written is written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        plan = self._plan
        if plan is None:
            return
        try:
            await self._compare_waiting()
            await self._tell(plan)
        except PortcullisError as error:
            log.warning("what was counted of a trial is lost: %s", error.message)
        self._plan = None
        for held in plan.held:
            held.retire()
        if self._judge_of is not None:
            self._judge_of[1].close()

    # --- trials ------------------------------------------------------------------------------------------------------

    def _offer(self, plan: Plan, domain: Domain, input: Mapping[str, Any], decision: Decision) -> None:
        """Leaves a decision of a shadow trial to be compared; not when too many wait, which is said once per trial."""
        try:
            self._waiting.put_nowait((plan, domain, input, decision))
        except asyncio.QueueFull:
            if not plan.skipped:
                log.warning("the candidate is slower than what decides: not every decision of this trial is compared")
            plan.skipped += 1

    async def _compare_forever(self) -> None:
        while True:
            await self._compare_one(*await self._waiting.get())

    async def _compare_waiting(self) -> None:
        while not self._waiting.empty():
            await self._compare_one(*self._waiting.get_nowait())

    async def _compare_one(self, plan: Plan, domain: Domain, input: Mapping[str, Any], decision: Decision) -> None:
        """What the candidate would have decided; nothing when the trial is over."""
        if plan.candidate is None or plan is not self._plan:
            return
        try:
            with plan.candidate.used() as candidate:
                other = await candidate.decide_async(domain, input)
            await self._compared(plan, domain, decision, other)
        except Exception as error:
            log.error("a decision of a trial was not compared: %s", type(error).__name__)  # noqa: TRY400  (it may quote input)

    async def _compared(self, plan: Plan, domain: Domain, decision: Decision, other: Decision) -> Difference | None:
        """Counts a decision of a trial; records what differs, as far as there is room."""
        kind = compare(decision, other)
        plan.tally = plan.tally.plus(kind)
        if kind is None or plan.recorded >= MAX_DIFFERENCES:
            return kind
        plan.recorded += 1
        details = {
            "found": "trial",
            "difference": kind,
            "domain": domain,
            "decision_id": decision.decision_id,
            "candidate_decision_id": other.decision_id,
            "candidate": other.policy_revision,
            "rules": sorted({found.rule for found in (*decision.violations, *other.violations)})[:20],
        }
        try:
            await self._recorder.event(self._entry("finding", plan.state, details, {"input": decision.input_digest}))
        except PortcullisError as error:
            # The decision itself is recorded by its door, or not made; a trial never stands in its way.
            log.warning("a difference could not be recorded: %s", error.message)
        return kind

    async def _tell(self, plan: Plan) -> None:
        if plan.tally != plan.told:
            tally = plan.tally
            await self._rollouts.count(plan.state.version, self._worker, tally)
            plan.told = tally

    async def _end_if_bad(self, plan: Plan) -> None:
        """Ends a trial that denies or fails too often, as all processes together have counted."""
        if not plan.state.candidate:
            return
        why = plan.state.bounds.broken_by(await self._rollouts.tally(plan.state.version))
        if not why:
            return
        details = {"found": "trial ended", "candidate": plan.state.candidate, "because": why}
        try:
            await self._rollouts.advance(
                plan.state, action="returned", stage="full", percent=0, candidate="", author=SYSTEM, reason=why
            )
        except Conflict:
            return  # another process saw it too, or a person was quicker
        log.warning("a trial has ended by itself: %s", why)
        await self._recorder.event(self._entry("alert", plan.state, details, {}))

    # --- following ---------------------------------------------------------------------------------------------------

    async def _follow_forever(self) -> None:
        while True:
            await asyncio.sleep(self._every or EVERY_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """One look, now. Whatever goes wrong leaves what runs as it is and is said once."""
        async with self._lock:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    if self._every is None:
                        await self._compare_waiting()
                    await self._follow(self._now())
            except PortcullisError as error:
                await self._alert(error, ("look",))
            except Exception as error:
                await self._alert(Unavailable(f"a look at what runs failed: {type(error).__name__}"), ("look",))
            else:
                self._alerted.discard(("look",))

    async def _follow(self, plan: Plan) -> None:
        await self._tell(plan)
        await self._end_if_bad(plan)
        version = await self._rollouts.version()
        state = plan.state if version == plan.state.version else await self._rollouts.state()
        wanted = self._key(state.base)
        base, base_key = plan.base, plan.base_key
        if wanted != base_key and (found := await self._try(wanted, state.base)) is not None:
            base, base_key = found, wanted
        candidate = await self._candidate(state, plan)
        if state == plan.state and base is plan.base and candidate is plan.candidate:
            return
        await self._run(state, base, base_key, candidate)

    def _key(self, proposal: str) -> Key:
        """What a base is loaded from: changes when the proposal does, or the bundle file."""
        return ("proposal", proposal) if proposal else ("settings", *self._signature())

    async def _candidate(self, state: State, before: Plan | None) -> Held | None:
        """The candidate, evaluated in this process whatever engine decides. None, with an alert, while it cannot be loaded."""
        if not state.candidate:
            return None
        if before is not None and before.candidate is not None and before.state.candidate == state.candidate:
            return before.candidate
        return await self._try(("candidate", state.candidate), state.candidate, beside=True)

    async def _try(self, key: Key, proposal: str, *, beside: bool = False) -> Held | None:
        """`_load`, unless it failed a moment ago. None, with an alert, when it fails."""
        if time.monotonic() < self._retry.get(key, 0):
            return None
        try:
            held = await self._load(proposal, beside=beside)
        except PortcullisError as error:
            # What depends on something that was away is tried again at the next look.
            self._retry = {key: time.monotonic() + (0 if isinstance(error, Unavailable) else RETRY_SECONDS)}
            await self._alert(error, key)
            return None
        self._alerted.discard(key)
        return held

    async def _run(self, state: State, base: Held, base_key: Key, candidate: Held | None) -> None:
        """From here on `base` decides; what decided before is closed when its last decision is made."""
        before = self._plan
        plan = Plan(state, base, base_key, candidate)
        if before is not None and before.state.version == state.version:
            plan.tally, plan.told = before.tally, before.told
            plan.recorded, plan.skipped = before.recorded, before.skipped
        for engine in (held.engine for held in plan.held):
            self._recorder.keep_bundle(engine.revision, engine.bundle.files())
            self.rules.add([rule.id for rule in engine.catalogue.rules()])
        self._plan = plan
        for old in before.held if before is not None else ():
            if old not in plan.held:
                memory = old.engine.memory
                self._past = Remembered(self._past.hits + memory.hits, self._past.misses + memory.misses)
                self._failed.update(old.engine.failures)
                old.retire()
        log.info("policies: state %d (%s), revision %s decides", state.version, state.action, base.engine.revision)

    def _local(self) -> Policy:
        return self._policy.model_copy(update={"engine": "auto", "url": None, "ca": None, "token_file": None})

    async def _load(self, proposal: str, *, beside: bool = False) -> Held:
        """The engine over a proposal's bundle, or over what the settings name."""
        policy = self._local() if beside else self._policy
        if proposal:
            data = await content_of(self._database, proposal)
            found = await asyncio.to_thread(distribution.read, data, key=verify_key(policy), where=f"proposal {proposal}")
        elif policy.bundle is not None:
            found = await asyncio.to_thread(distribution_of, policy)
            await self._must_be_newest(found)
        else:
            return Held(await asyncio.to_thread(load_policy, policy))
        held = Held(await asyncio.to_thread(engine_over, policy, found.loaded, found.wasm), found.data)
        if not proposal:
            # Only now: a bundle that cannot decide must not keep the last good one from coming back.
            await self._raise_floor(found)
        return held

    async def _earlier(self, state: State, reason: PortcullisError) -> Held:
        """The newest of what decided before `state` that can still be loaded; `reason` when there is none."""
        for old in dict.fromkeys([*(one.base for one in await self._rollouts.history()), ""]):
            if old != state.base:
                with contextlib.suppress(PortcullisError):
                    return await self._load(old)
        raise reason

    async def _must_be_newest(self, found: Distribution) -> None:
        """Broken for a bundle file that is older than one that ran under the same key, or another one of the same serial."""
        key = verify_key(self._policy)
        floor = None if key is None else await self._rollouts.floor(key_id(key))
        if floor is not None and (found.serial < floor[0] or (found.serial == floor[0] and found.revision != floor[1])):
            older = "is older than" if found.serial < floor[0] else "has the same serial as"
            raise Broken(
                f"serial {found.serial} {older} the bundle that ran last (serial {floor[0]}, {floor[1]}); build it with a larger "
                "--serial, or go back with portcullis policy bundle rollback",
                where=str(self._policy.bundle),
            )

    async def _raise_floor(self, found: Distribution) -> None:
        key = verify_key(self._policy)
        if key is not None:
            await self._rollouts.raise_floor(key_id(key), found.serial, found.revision)

    async def _alert(self, error: PortcullisError, key: Key) -> None:
        """Says once, until it is well again, what is wrong with what shall run: in the log and on record."""
        if key in self._alerted:
            return
        self._alerted.add(key)
        log.error("policies: %s; what ran before goes on deciding", error)
        details = {"found": "policies not loaded", "because": error.message[:500], "error": error.code}
        try:
            await self._recorder.event(self._entry("alert", self.state, details, {}))
        except PortcullisError as failure:
            log.error("the alert could not be recorded: %s", failure.message)  # noqa: TRY400

    def _entry(self, kind: RecordKind, state: State, details: Mapping[str, Any], digests: Mapping[str, str]) -> Entry:
        subject = f"policy/{state.candidate or state.base or 'settings'}"
        return Entry(kind, SYSTEM, self._tenant, subject, digests=dict(digests), details={**details, "version": state.version})

    def _signature(self) -> tuple[int, int, int]:
        """What changes when the bundle file does."""
        if self._policy.bundle is None:
            return (0, 0, 0)
        try:
            status = Path(self._policy.bundle).stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_size, status.st_ino)
