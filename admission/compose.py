"""Everything the admission door is made of, built with plain constructors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from admission import certificates
from admission.ledger import QuotaLedger
from admission.service import AdmissionService
from core.clock import SystemClock
from core.ports import Clock, Deployments, ModelRegistry
from core.settings import Settings, Tls, reveal
from evidence.commitments import SaltedCommitments
from evidence.recorder import EvidenceRecorder
from policies.live import LiveEngine
from policies.store import ConfigStore
from storage.database import Database, open_database
from storage.migrate import migrate

Models = Callable[[Database], ModelRegistry]
Places = Callable[[Database, Clock], Deployments]


@dataclass(frozen=True)
class AdmissionDoor:
    """`service` answers reviews, `config` and `service` are what `check` needs, `ledger` what `quota show` reads."""

    settings: Settings
    clock: SystemClock
    engine: LiveEngine
    config: ConfigStore
    ledger: QuotaLedger
    service: AdmissionService
    opened: AsyncExitStack

    def tls(self, hosts: Sequence[str] = ()) -> Tls:
        """The configured certificate, or a self-signed one for this machine and `hosts` (the Service's DNS names).

        The self-signed CA, which goes into the webhook configuration's `caBundle`, is `ca.crt` in `tls_folder`.
        """
        if self.settings.tls is not None:
            return self.settings.tls
        files = certificates.ensure(self.tls_folder, hosts, now_unix=self.clock.now_unix())
        return Tls(cert=str(files.cert), key=str(files.key))

    @property
    def tls_folder(self) -> Path:
        return Path(self.settings.keys.path) / "admission-tls"

    async def close(self) -> None:
        await self.opened.aclose()


async def build(settings: Settings, environ: Mapping[str, str], *, models: Models, deployments: Places) -> AdmissionDoor:
    """Opens the state that `settings` names. `models` and `deployments` make lineage's parts over the opened database.

    ConfigError when no rule can be loaded or the configuration cannot be used, Unavailable when something does not answer.
    """
    url = reveal(settings.storage.url, environ=environ, read=_read, where="storage.url")
    async with AsyncExitStack() as opened:
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
        ledger = QuotaLedger(database, clock)
        service = AdmissionService(
            engine=engine,
            config=config,
            models=models(database),
            recorder=recorder,
            commitments=commitments,
            ledger=ledger,
            deployments=deployments(database, clock),
            clock=clock,
            tenant=settings.tenant,
        )
        # Kept open from here on; what failed before this line has closed all that was opened.
        return AdmissionDoor(settings, clock, engine, config, ledger, service, opened.pop_all())


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
