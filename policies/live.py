"""The engine of a door that goes on running: it follows what the installation decides shall decide, without losing a call.

What runs is looked at before a decision, at most every half second: the state in the database (`policies.rollout`), or the bundle
file that the settings name. A bundle that cannot be loaded, is not signed as asked, or is older than what runs changes nothing:
the last good one goes on deciding, and an alert is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import select

from core.canonical import sha256
from core.decision import Decision, Domain
from core.errors import Broken, ConfigError, Conflict, PortcullisError, Unavailable
from core.ids import uuid7
from core.ports import Clock, Recorder
from core.record import Entry, RecordKind
from core.settings import Policy
from policies import distribution, tree
from policies.bundle_keys import key_id
from policies.catalogue import Catalogue
from policies.check import Loaded
from policies.distribution import Distribution
from policies.engine import Engine, distribution_of, engine_over, load_policy, verify_key
from policies.proposals import content_of
from policies.rollout import Rollouts, State, Tally, chosen, compare, tenant_of
from policies.tables import ProposalRow
from storage.database import Database

log = logging.getLogger("portcullis.policies")
MAX_AGE_SECONDS = 0.5
MAX_DIFFERENCES = 200
"""Differing decisions of one trial that each process records one by one; all of them are counted."""
SYSTEM = "portcullis"
"""The installation itself, as the actor of what no person did."""


class Keeper(Recorder, Protocol):
    """The recorder as it is needed here: it also keeps the bundles that decisions are recomputed from."""

    def keep_bundle(self, revision: str, files: Mapping[str, bytes]) -> None: ...


@dataclass(frozen=True, slots=True)
class Remembered:
    """Decisions that were made before on exactly the same input, and those that were not."""

    hits: int = 0
    misses: int = 0


@dataclass(frozen=True, slots=True)
class Published:
    """What decides, as the bundle file that others may load: `digest` is of exactly these bytes."""

    data: bytes
    digest: str
    revision: str


class _Held:
    """An engine with the decisions under way in it: retired, it is closed when the last of them is made.

    `data`: the bundle file that it was loaded from; None for rules that came from folders.
    """

    def __init__(self, engine: Engine, data: bytes | None = None) -> None:
        self.engine = engine
        self._data = data
        self.published: Published | None = None
        self._users = 0
        self._retired = False

    @contextlib.contextmanager
    def used(self) -> Iterator[Engine]:
        self._users += 1
        try:
            yield self.engine
        finally:
            self._users -= 1
            self._end()

    def publish(self) -> Published:
        """The bundle file with its digest. One is built of rules that came from folders: unsigned, without Wasm, no test run."""
        data = self._data or distribution.build(self.engine.loaded, wasm=None, tests=0)
        self.published = Published(data, sha256(data), self.engine.revision)
        return self.published

    def retire(self) -> None:
        self._retired = True
        self._end()

    def _end(self) -> None:
        if self._retired and self._users == 0:
            self.engine.close()


@dataclass
class _Plan:
    """One state with its engines; of a trial, what this process has counted, and what of that the database knows."""

    state: State
    base: _Held
    candidate: _Held | None
    tally: Tally = field(default_factory=Tally)
    told: Tally = field(default_factory=Tally)
    recorded: int = 0

    @property
    def held(self) -> tuple[_Held, ...]:
        return (self.base,) if self.candidate is None else (self.base, self.candidate)


class RunningRules(Collection[str]):
    """The ids of the rules that decide now; what modes and exemptions may name."""

    def __init__(self, ids: Collection[str]) -> None:
        self.ids = frozenset(ids)

    def __contains__(self, rule: object) -> bool:
        return rule in self.ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


async def running_rules(database: Database, policy: Policy, clock: Clock) -> RunningRules:
    """The rules that decide now, without loading an engine."""
    state = await Rollouts(database, clock).state()
    if state.base:
        query = select(ProposalRow.summary).where(ProposalRow.id == state.base)
        async with database.session(reading=True) as session:
            summary = await session.scalar(query)
        return RunningRules((summary or {}).get("rules", ()))
    if policy.bundle is not None:
        found = await asyncio.to_thread(distribution_of, policy)
        return RunningRules([rule.id for rule in found.loaded.catalogue.rules()])
    return RunningRules(tree.rule_ids(policy.extra))


class LiveEngine:
    """`core.ports.Engine` over whatever runs. Made by `open_live`; `close` when done."""

    def __init__(
        self,
        policy: Policy,
        database: Database,
        *,
        recorder: Keeper,
        clock: Clock,
        tenant: str,
        rules: RunningRules | None = None,
        max_age_seconds: float = MAX_AGE_SECONDS,
    ) -> None:
        self.rules = RunningRules(()) if rules is None else rules
        self._policy = policy
        self._database = database
        self._rollouts = Rollouts(database, clock)
        self._recorder = recorder
        self._tenant = tenant
        self._max_age = max_age_seconds
        self._worker = uuid7()
        self._lock = asyncio.Lock()
        self._plan: _Plan | None = None
        self._looked = float("-inf")
        self._file: tuple[int, int, int] | None = None
        self._alerted: tuple[Any, ...] = ()
        self._given_up: tuple[Any, ...] = ()
        self._past = Remembered()
        self._failed: Counter[str] = Counter()

    async def open(self) -> LiveEngine:
        """Loads what runs. ConfigError, BadSignature, Broken or Unavailable when it cannot: a door without rules does not start."""
        state = await self._rollouts.state()
        self._file = self._signature()
        await self._run(state, await self._load(state.base))
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
        if self._plan is None:
            raise ConfigError("the policies have not been loaded")
        return self._plan.base.engine

    async def published(self) -> Published:
        """What decides now, never a candidate, as the exact file that was checked when it was loaded."""
        await self._look()
        if self._plan is None:
            raise ConfigError("the policies have not been loaded")
        held = self._plan.base
        return await asyncio.to_thread(held.publish) if held.published is None else held.published

    async def configured(self) -> Loaded:
        """The rules that the settings name, whatever decides now."""
        return (await asyncio.to_thread(load_policy, self._policy)).loaded

    @property
    def state(self) -> State:
        """What runs in this process."""
        return State() if self._plan is None else self._plan.state

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

    def decide(self, domain: Domain, input: Mapping[str, Any]) -> Decision:
        """By what runs as of the last look."""
        return self.base.decide(domain, input)

    async def decide_async(self, domain: Domain, input: Mapping[str, Any]) -> Decision:
        """By what runs now. A trial is judged by nobody but the rules that run: the domain `bundle` never sees a candidate."""
        await self._look()
        plan = self._plan
        if plan is None:
            raise ConfigError("the policies have not been loaded")
        with contextlib.ExitStack() as used:
            # Both at once: a candidate that is retired meanwhile still answers what it was asked.
            base, *beside = [used.enter_context(held.used()) for held in plan.held]
            decision = await base.decide_async(domain, input)
            if not beside or domain == "bundle":
                return decision
            other = await beside[0].decide_async(domain, input)
        await self._compared(plan, domain, decision, other)
        if plan.state.stage == "percentage" and chosen(plan.state.candidate, tenant_of(domain, input), plan.state.percent):
            return other
        return decision

    async def _compared(self, plan: _Plan, domain: Domain, decision: Decision, other: Decision) -> None:
        """Counts a decision of a trial; records what differs, as far as there is room."""
        kind = compare(decision, other)
        plan.tally = plan.tally.plus(kind)
        if kind is None or plan.recorded >= MAX_DIFFERENCES:
            return
        plan.recorded += 1
        details = {
            "found": "trial",
            "difference": kind,
            "domain": domain,
            "decision_id": decision.decision_id,
            "candidate": other.policy_revision,
            "rules": sorted({found.rule for found in (*decision.violations, *other.violations)})[:20],
        }
        try:
            await self._recorder.event(self._entry("finding", plan.state, details, {"input": decision.input_digest}))
        except PortcullisError as error:
            # The decision itself is recorded by its door, or not made; a trial never stands in its way.
            log.warning("a difference could not be recorded: %s", error.message)

    async def close(self) -> None:
        """Closes every engine; what was counted and not written is written."""
        plan, self._plan = self._plan, None
        if plan is None:
            return
        try:
            await self._tell(plan)
        except PortcullisError as error:
            log.warning("what was counted of a trial is lost: %s", error.message)
        for held in plan.held:
            held.retire()

    # --- following ---------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Looks now, as the next decision would."""
        self._looked = float("-inf")
        await self._look()

    async def _look(self) -> None:
        if time.monotonic() - self._looked < self._max_age or self._lock.locked():
            return
        async with self._lock:
            if time.monotonic() - self._looked >= self._max_age:
                await self._follow()
                self._looked = time.monotonic()

    async def _follow(self) -> None:
        """One look. Whatever goes wrong leaves what runs as it is."""
        plan = self._plan
        if plan is None:
            return
        mark: tuple[Any, ...] = ("database",)
        try:
            await self._tell(plan)
            await self._judge(plan)
            signature = self._signature()
            mark = (await self._rollouts.version(), signature)
            if mark in ((plan.state.version, self._file), self._given_up):
                return
            state = await self._rollouts.state()
            same = state.base == plan.state.base and (bool(state.base) or signature == self._file)
            base = plan.base if same else await self._load(state.base)
            await self._run(state, base)
        except PortcullisError as error:
            # What depends on something that was away is tried again at the next look; a bundle does not mend itself.
            self._given_up = () if isinstance(error, Unavailable) else mark
            await self._alert(error, mark)
            return
        self._file = signature

    async def _run(self, state: State, base: _Held) -> None:
        """From here on `base` decides; what decided before is closed when its last decision is made."""
        before = self._plan
        plan = _Plan(state, base, await self._beside(state, before))
        for engine in (one.engine for one in plan.held):
            self._recorder.keep_bundle(engine.revision, engine.bundle.files())
        self.rules.ids = frozenset(rule.id for one in plan.held for rule in one.engine.catalogue.rules())
        self._plan = plan
        for old in before.held if before is not None else ():
            if old not in plan.held:
                self._retire(old)
        log.info("policies: state %d (%s), revision %s decides", state.version, state.action, base.engine.revision)

    def _retire(self, old: _Held) -> None:
        memory = old.engine.memory
        self._past = Remembered(self._past.hits + memory.hits, self._past.misses + memory.misses)
        self._failed.update(old.engine.failures)
        old.retire()

    async def _beside(self, state: State, before: _Plan | None) -> _Held | None:
        """The candidate, evaluated in this process whatever engine decides. None, with an alert, when it cannot be loaded."""
        if not state.candidate:
            return None
        if before is not None and before.candidate is not None and before.state.candidate == state.candidate:
            return before.candidate
        try:
            return await self._load(state.candidate, beside=True)
        except PortcullisError as error:
            await self._alert(error, ("candidate", state.version))
            return None

    async def _load(self, proposal: str, *, beside: bool = False) -> _Held:
        """The engine over a proposal's bundle, or over what the settings name."""
        policy = (
            self._policy.model_copy(update={"engine": "auto", "url": None, "ca": None, "token_file": None})
            if beside
            else self._policy
        )
        if proposal:
            data = await content_of(self._database, proposal)
            found = await asyncio.to_thread(distribution.read, data, key=verify_key(policy), where=f"proposal {proposal}")
        elif policy.bundle is not None:
            found = await asyncio.to_thread(distribution_of, policy)
            await self._must_be_newest(found)
        else:
            return _Held(await asyncio.to_thread(load_policy, policy))
        return _Held(await asyncio.to_thread(engine_over, policy, found.loaded, found.wasm), found.data)

    async def _must_be_newest(self, found: Distribution) -> None:
        """Broken for a bundle file that is older than one that ran under the same key, or another one of the same serial."""
        key = verify_key(self._policy)
        if key is None:
            return
        signer = key_id(key)
        floor = await self._rollouts.floor(signer)
        if floor is not None and (found.serial < floor[0] or (found.serial == floor[0] and found.revision != floor[1])):
            older = "is older than" if found.serial < floor[0] else "has the same serial as"
            raise Broken(
                f"serial {found.serial} {older} the bundle that ran last (serial {floor[0]}, {floor[1]}); build it with a larger "
                "--serial, or go back with portcullis policy bundle rollback",
                where=str(self._policy.bundle),
            )
        if floor != (found.serial, found.revision):
            await self._rollouts.raise_floor(signer, found.serial, found.revision)

    async def _tell(self, plan: _Plan) -> None:
        if plan.tally != plan.told:
            tally = plan.tally
            await self._rollouts.count(plan.state.version, self._worker, tally)
            plan.told = tally

    async def _judge(self, plan: _Plan) -> None:
        """Ends a trial that denies or fails too often, as all processes together have counted."""
        if plan.candidate is None:
            return
        why = plan.state.bounds.broken_by(await self._rollouts.tally(plan.state.version))
        if not why:
            return
        try:
            await self._rollouts.advance(
                plan.state, action="returned", stage="full", percent=0, candidate="", author=SYSTEM, reason=why
            )
        except Conflict:
            return  # another process saw it too, or a person was quicker
        log.warning("a trial has ended by itself: %s", why)
        details = {"found": "trial ended", "candidate": plan.candidate.engine.revision, "because": why}
        await self._recorder.event(self._entry("alert", plan.state, details, {}))

    async def _alert(self, error: PortcullisError, mark: tuple[Any, ...]) -> None:
        """Says once what is wrong with what shall run, in the log and on record."""
        if mark == self._alerted:
            return
        self._alerted = mark
        log.error("policies: %s; what ran before goes on deciding", error)
        details = {"found": "policies not loaded", "because": error.message[:500], "error": error.code}
        try:
            await self._recorder.event(self._entry("alert", self.state, details, {}))
        except PortcullisError as failure:
            log.error("the alert could not be recorded: %s", failure.message)  # noqa: TRY400

    def _entry(self, kind: RecordKind, state: State, details: Mapping[str, Any], digests: Mapping[str, str]) -> Entry:
        subject = f"policy/{state.candidate or state.base or 'settings'}"
        return Entry(kind, SYSTEM, self._tenant, subject, digests=dict(digests), details={**details, "version": state.version})

    def _signature(self) -> tuple[int, int, int] | None:
        """What changes when the bundle file does."""
        if self._policy.bundle is None:
            return None
        try:
            status = Path(self._policy.bundle).stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_size, status.st_ino)
