"""What a door's engine is made of while it runs: engines that outlive their last decision, the state that they serve, the rules."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import select

from core.canonical import sha256
from core.errors import PortcullisError
from core.ports import Clock
from core.settings import Policy
from policies import distribution, tree
from policies.check import Loaded
from policies.engine import Engine, configured, distribution_of, verify_key
from policies.proposals import content_of
from policies.rollout import Rollouts, State, Tally
from policies.tables import ProposalRow
from storage.database import Database

log = logging.getLogger("portcullis.policies")


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


class Held:
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
class Plan:
    """One state with its engines; of a trial, what this process has counted, and what of that the database knows."""

    state: State
    base: Held
    base_key: tuple[object, ...]
    """What `base` was loaded from: the proposal, or the file as it was."""
    candidate: Held | None
    tally: Tally = field(default_factory=Tally)
    told: Tally = field(default_factory=Tally)
    recorded: int = 0
    skipped: int = 0
    """Decisions of a shadow trial that nothing was compared with, because too many waited."""

    @property
    def held(self) -> tuple[Held, ...]:
        return (self.base,) if self.candidate is None else (self.base, self.candidate)


class RunningRules(Collection[str]):
    """The ids of the rules that modes and exemptions may name: those that decide, are tried, or decided since this process started.

    A rule that went away stays nameable in a running process: what is written about it is without effect, and no reason to refuse
    every request.
    """

    def __init__(self, ids: Collection[str] | None) -> None:
        """None: what runs cannot be read here, so no name is refused."""
        self.ids = frozenset(ids or ())
        self._known = ids is not None

    def add(self, ids: Collection[str]) -> None:
        self.ids |= frozenset(ids)
        self._known = True

    def __contains__(self, rule: object) -> bool:
        return rule in self.ids or not self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


async def running_loaded(database: Database, policy: Policy, clock: Clock) -> Loaded:
    """The rules that decide now, without an engine over them. What `distribution.read` and `engine.configured` raise."""
    state = await Rollouts(database, clock).state()
    if not state.base:
        return await asyncio.to_thread(configured, policy)
    data = await content_of(database, state.base)
    read = partial(distribution.read, key=verify_key(policy), where=f"proposal {state.base}")
    return (await asyncio.to_thread(read, data)).loaded


async def running_rules(database: Database, policy: Policy, clock: Clock) -> RunningRules:
    """The rules that decide now, without loading an engine; every name, when they cannot be read: whoever repairs that or stops
    something must be able to."""
    try:
        return RunningRules(await _ids(database, policy, clock))
    except PortcullisError as error:
        log.warning("the rules that run cannot be read (%s); names of rules are not checked", error.message)
        return RunningRules(None)


async def _ids(database: Database, policy: Policy, clock: Clock) -> Collection[str]:
    state = await Rollouts(database, clock).state()
    if state.base:
        query = select(ProposalRow.summary).where(ProposalRow.id == state.base)
        async with database.session(reading=True) as session:
            summary = await session.scalar(query)
        return list((summary or {}).get("rules", ()))
    if policy.bundle is not None:
        found = await asyncio.to_thread(distribution_of, policy)
        return [rule.id for rule in found.loaded.catalogue.rules()]
    return tree.rule_ids(policy.extra)
