"""Everything the gateway is made of, built with plain constructors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from core.clock import SystemClock
from core.ports import ModelRegistry
from core.settings import Settings, reveal
from evidence.commitments import SaltedCommitments
from evidence.recorder import EvidenceRecorder
from evidence.refusals import Refusals
from gateway.app import Gateway
from gateway.governor import Governor
from gateway.limits import RequestLimiter
from gateway.log import InferenceLog
from gateway.telemetry import Metrics, Telemetry
from gateway.upstream import Pool, Routes
from identity.bearer import bearer
from identity.keys import ApiKeys
from identity.pepper import load_pepper
from policies.live import LiveEngine
from policies.store import ConfigStore
from redaction.channel import Channel, command
from redaction.policy import read_policy
from storage.database import Database, open_database
from storage.migrate import migrate

Models = Callable[[Database], ModelRegistry]


@dataclass(frozen=True)
class GatewayDoor:
    settings: Settings
    app: Gateway
    telemetry: Telemetry
    refusals: Refusals
    opened: AsyncExitStack

    async def close(self) -> None:
        await self.opened.aclose()


async def build(settings: Settings, environ: Mapping[str, str], *, models: Models) -> GatewayDoor:
    """Opens what `settings` names; closes it again when something fails half-way.

    ConfigError when rules, configuration or upstreams cannot be used, Unavailable when something does not answer.
    """
    url = reveal(settings.storage.url, environ=environ, read=_read, where="storage.url")
    api_keys = {
        upstream.name: reveal(upstream.api_key, environ=environ, read=_read, where=f"gateway.upstreams {upstream.name}")
        for upstream in settings.gateway.upstreams
        if upstream.api_key is not None
    }
    async with AsyncExitStack() as opened:
        routes = Routes(settings.gateway.upstreams, api_keys)
        database = open_database(url)
        opened.push_async_callback(database.close)
        await migrate(database)
        clock = SystemClock()
        folder = Path(settings.evidence.dir)
        recorder = EvidenceRecorder(folder, durability=settings.evidence.durability, clock=clock)
        opened.callback(recorder.close)
        engine = LiveEngine(settings.policy, database, recorder=recorder, clock=clock, tenant=settings.tenant)
        opened.push_async_callback(engine.close)
        await engine.open()
        commitments = SaltedCommitments(folder, database, clock=clock)
        files = [Path(item) for item in settings.config]
        config = ConfigStore(
            database,
            commitments=commitments,
            recorder=recorder,
            files=files,
            clock=clock,
            home=settings.tenant,
            rules=engine.rules,
        )
        await config.refresh()
        pepper = load_pepper(Path(settings.keys.path) / "pepper")
        metrics = Metrics()
        metrics.watch(engine)
        policy = read_policy(settings.redaction.policy)
        redactor = Channel(command(settings.redaction.policy))
        sink = InferenceLog(Path(settings.gateway.log), policy, redactor, metrics)
        opened.push_async_callback(sink.close)
        redactor.start()
        pool = Pool()
        opened.push_async_callback(pool.close)
        refusals = Refusals(recorder, settings.tenant)
        opened.push_async_callback(refusals.flush)
        governor = Governor(
            engine=engine,
            models=models(database),
            config=config,
            recorder=recorder,
            commitments=commitments,
            clock=clock,
            limiter=RequestLimiter(),
        )
        app = Gateway(
            identity=ApiKeys(database, pepper=pepper, recorder=recorder, commitments=commitments, clock=clock),
            bearer=bearer,
            governor=governor,
            routes=routes,
            pool=pool,
            refusals=refusals,
            sink=sink,
            metrics=metrics,
            max_body_bytes=settings.gateway.max_body_bytes,
        )
        return GatewayDoor(settings, app, Telemetry(metrics, app), refusals, opened.pop_all())


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
