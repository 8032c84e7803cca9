"""Everything the management side is made of, built with plain constructors. The command line uses the same object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from api.longpoll import Waits
from api.quota import Accounts
from core.clock import SystemClock
from core.principal import Principal
from core.settings import Settings, reveal
from evidence.commitments import SaltedCommitments
from evidence.recorder import EvidenceRecorder
from evidence.refusals import Refusals
from evidence.sequencer import Sequencer
from identity.keys import ApiKeys
from identity.people import Approvers as People
from identity.pepper import load_pepper
from identity.roles import Roles
from lineage.approvals import Approvals
from lineage.datasets import Datasets
from lineage.deployments import Deployments
from lineage.ledger import Ledger
from lineage.models import Models
from lineage.registry import Registry
from policies.freezes import Freezes
from policies.live import LiveEngine
from policies.proposals import Proposals
from policies.reviewed import ReviewedChanges
from policies.rollout import Director, Rollouts
from policies.running import RunningRules, running_rules
from policies.store import ConfigStore
from storage.database import Database, open_database
from storage.migrate import migrate
from weights.keys import InsecureLocalKeys
from weights.release import KeyRelease


@dataclass(frozen=True)
class Management:
    settings: Settings
    database: Database
    clock: SystemClock
    commitments: SaltedCommitments
    recorder: EvidenceRecorder
    sequencer: Sequencer
    config: ConfigStore
    rules: RunningRules
    proposals: Proposals
    reviewed: ReviewedChanges
    rollouts: Rollouts
    director: Director
    keys: ApiKeys
    approvers: People
    roles: Roles
    lineage: Ledger
    datasets: Datasets
    models: Models
    registry: Registry
    deployments: Deployments
    weight_keys: InsecureLocalKeys

    @asynccontextmanager
    async def engine(self, *, repair: bool = True) -> AsyncIterator[LiveEngine]:
        """The policy engine over what runs now; its bundle is kept with the evidence, so that its decisions can be recomputed.

        `repair`: over what decided before, where that cannot be loaded, so that commands can put something else into effect.
        """
        engine = LiveEngine(
            self.settings.policy,
            self.database,
            recorder=self.recorder,
            clock=self.clock,
            tenant=self.settings.tenant,
            rules=self.rules,
        )
        try:
            yield await engine.open(repair=repair)
        finally:
            await engine.close()

    @property
    def freezes(self) -> Freezes:
        return Freezes(self.config, commitments=self.commitments, clock=self.clock)

    def approvals(self, engine: LiveEngine) -> Approvals:
        return Approvals(self.lineage, engine=engine, config=self.config, directory=self.approvers, registry=self.registry)

    def key_release(self, engine: LiveEngine) -> KeyRelease:
        return KeyRelease(
            engine=engine,
            config=self.config,
            registry=self.registry,
            recorder=self.recorder,
            commitments=self.commitments,
            keys=self.weight_keys,
            clock=self.clock,
        )

    def operator(self, name: str) -> Principal:
        """Who acts on this machine with the state folder in hand: its owner can read every key anyway."""
        person = self.settings.operators.get(name)
        id = f"local:{name}" if person is None else f"person:{person}"  # noqa: A001  (a principal's)
        return Principal(id, "operator", self.settings.tenant, roles=frozenset({"admin", "operator"}))

    async def close(self) -> None:
        self.recorder.close()
        await self.database.close()


@dataclass(frozen=True)
class Served:
    """The management API: the same rooms, with the engine loaded once. `accounts` is the admission door's ledger, handed in."""

    management: Management
    engine: LiveEngine
    approvals: Approvals
    key_release: KeyRelease
    accounts: Accounts
    refusals: Refusals
    waits: Waits
    opened: AsyncExitStack

    async def close(self) -> None:
        await self.opened.aclose()


async def build_served(
    settings: Settings, environ: Mapping[str, str], *, accounts: Callable[[Database, SystemClock], Accounts]
) -> Served:
    """As `build`, for the server. ConfigError also when no rule can be loaded or the configuration cannot be used."""
    async with AsyncExitStack() as opened:
        management = await build(settings, environ)
        opened.push_async_callback(management.close)
        engine = await opened.enter_async_context(management.engine(repair=False))
        await management.config.refresh()
        refusals = Refusals(management.recorder, settings.tenant)
        opened.push_async_callback(refusals.flush)
        return Served(
            management=management,
            engine=engine,
            approvals=management.approvals(engine),
            key_release=management.key_release(engine),
            accounts=accounts(management.database, management.clock),
            refusals=refusals,
            waits=Waits(),
            # Kept open from here on; what failed before this line has closed all that was opened.
            opened=opened.pop_all(),
        )


async def build(settings: Settings, environ: Mapping[str, str]) -> Management:
    """Opens the state that `settings` names and brings its schema up to date. Unavailable or ConfigError as its parts say."""
    url = reveal(settings.storage.url, environ=environ, read=_read, where="storage.url")
    database = open_database(url)
    await migrate(database)
    clock = SystemClock()
    folder = Path(settings.evidence.dir)
    recorder = EvidenceRecorder(folder, durability=settings.evidence.durability, clock=clock)
    commitments = SaltedCommitments(folder, database, clock=clock)
    files = [Path(item) for item in settings.config]
    pepper = load_pepper(Path(settings.keys.path) / "pepper")
    lineage = Ledger(database, recorder=recorder, commitments=commitments, clock=clock)
    rules = await running_rules(database, settings.policy, clock)
    config = ConfigStore(
        database,
        commitments=commitments,
        recorder=recorder,
        files=files,
        clock=clock,
        home=settings.tenant,
        rules=rules,
    )
    approvers = People(database, recorder=recorder, commitments=commitments, clock=clock)
    rollouts = Rollouts(database, clock)
    proposals = Proposals(
        database,
        recorder=recorder,
        commitments=commitments,
        clock=clock,
        config=config,
        directory=approvers,
        tenant=settings.tenant,
    )
    return Management(
        settings=settings,
        database=database,
        clock=clock,
        commitments=commitments,
        recorder=recorder,
        sequencer=Sequencer(folder, origin=settings.evidence.origin, clock=clock),
        config=config,
        rules=rules,
        proposals=proposals,
        reviewed=ReviewedChanges(config, proposals),
        rollouts=rollouts,
        director=Director(rollouts, proposals, tenant=settings.tenant, named=config.named_rules),
        keys=ApiKeys(database, pepper=pepper, recorder=recorder, commitments=commitments, clock=clock),
        approvers=approvers,
        roles=Roles(database, recorder=recorder, commitments=commitments, clock=clock),
        lineage=lineage,
        datasets=Datasets(lineage),
        models=Models(lineage),
        registry=Registry(database),
        deployments=Deployments(database, clock),
        weight_keys=InsecureLocalKeys(Path(settings.keys.path) / "weights"),
    )


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
