from __future__ import annotations

from collections.abc import Callable

import pytest

from admission.ledger import QuotaLedger
from admission.service import AdmissionService
from core.inputs import AdmissionConfig
from lineage.deployments import Deployments
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryConfig, MemoryModels, MemoryRecorder
from tests.unit.admission.reviews import TABLE, QuotaEngine, config

ServiceMaker = Callable[..., AdmissionService]


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def engine() -> QuotaEngine:
    return QuotaEngine()


@pytest.fixture
def ledger(database: Database) -> QuotaLedger:
    return QuotaLedger(database, FixedClock())


@pytest.fixture
def make(database: Database, recorder: MemoryRecorder, engine: QuotaEngine) -> ServiceMaker:
    """Services over one database, as replicas would be."""

    def made(settings: AdmissionConfig | None = None, models: MemoryModels | None = None) -> AdmissionService:
        clock = FixedClock()
        return AdmissionService(
            engine=engine,
            config=MemoryConfig(admission_config=settings or config(), table=dict(TABLE)),
            models=models or MemoryModels(),
            recorder=recorder,
            commitments=MemoryCommitments(),
            ledger=QuotaLedger(database, clock),
            deployments=Deployments(database, clock),
            clock=clock,
            tenant="default",
        )

    return made
