"""Small, honest implementations of the core's ports."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.canonical import digest
from core.decision import Decision, Domain, Violation
from core.errors import EvidenceUnavailable
from core.ids import uuid7
from core.inputs import AdmissionConfig, BundleConfig, GatewayConfig, LineageConfig, ModelFact, WeightsConfig
from core.names import SHARES_PER_GPU, ModelRef
from core.principal import Principal
from core.record import Entry, RecordKind


@dataclass
class FixedClock:
    now: int = 1_800_000_000

    def now_unix(self) -> int:
        return self.now


class MemoryCommitments:
    async def ref(self, tenant: str, person: str) -> str:
        return "ref:" + hashlib.sha256(f"{tenant}/{person}".encode()).hexdigest()[:32]


@dataclass
class MemoryRecorder:
    """Keeps what it was given; `broken` makes every append fail."""

    broken: bool = False
    entries: list[Entry] = field(default_factory=list)
    inputs: list[Mapping[str, Any]] = field(default_factory=list)

    async def event(self, entry: Entry) -> str:
        if self.broken:
            raise EvidenceUnavailable("the evidence log cannot be written")
        self.entries.append(entry)
        return uuid7()

    async def decision(
        self,
        kind: RecordKind,
        decision: Decision,
        input: Mapping[str, Any],
        *,
        actor: str,
        tenant: str,
        subject: str,
        digests: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> str:
        self.inputs.append(input)
        return await self.event(
            Entry(kind, actor, tenant, subject, decision.as_json(), dict(digests or {}), details=dict(details or {}))
        )


@dataclass
class ScriptedEngine:
    """Answers what the test says; keeps the inputs."""

    violations: tuple[Violation, ...] = ()
    grants: tuple[str, ...] = ("scripted",)
    name: str = "scripted"
    revision: str = "sha256:" + "0" * 64
    inputs: list[tuple[Domain, Mapping[str, Any]]] = field(default_factory=list)

    def decide(self, domain: Domain, input: Mapping[str, Any]) -> Decision:
        self.inputs.append((domain, input))
        return Decision(
            domain=domain,
            allow=not self.violations,
            evaluated=tuple(input.get("mandatory", ())),
            grants=self.grants,
            violations=self.violations,
            warnings=(),
            obligations={},
            decision_id=uuid7(),
            policy_revision=self.revision,
            config_revision=str(input.get("config", {}).get("revision", "")),
            engine=self.name,
            input_digest=digest(dict(input)),
        )

    async def decide_async(self, domain: Domain, input: Mapping[str, Any]) -> Decision:
        return self.decide(domain, input)


@dataclass
class MemoryModels:
    models: dict[tuple[str, str], ModelFact] = field(default_factory=dict)

    async def model(self, tenant: str, ref: ModelRef) -> ModelFact | None:
        return self.models.get((tenant, str(ref)))

    async def registered_digest(self, manifest_digest: str) -> ModelRef | None:
        for fact in self.models.values():
            if fact.manifest_digest == manifest_digest:
                return ModelRef(fact.name, fact.version)
        return None


@dataclass
class MemoryApprovers:
    people: dict[tuple[str, str], tuple[Principal, bytes, bool]] = field(default_factory=dict)

    async def approver(self, tenant: str, key_id: str) -> tuple[Principal, bytes, bool] | None:
        return self.people.get((tenant, key_id))


@dataclass
class MemoryConfig:
    admission_config: AdmissionConfig = field(default_factory=lambda: AdmissionConfig(revision="sha256:" + "1" * 64))
    gateway_config: GatewayConfig = field(default_factory=lambda: GatewayConfig(revision="sha256:" + "1" * 64))
    weights_config: WeightsConfig = field(default_factory=lambda: WeightsConfig(revision="sha256:" + "1" * 64))
    lineage_config: LineageConfig = field(default_factory=lambda: LineageConfig(revision="sha256:" + "1" * 64))
    bundle_config: BundleConfig = field(default_factory=lambda: BundleConfig(revision="sha256:" + "1" * 64))
    rpm: int = 60
    table: dict[str, int] = field(default_factory=lambda: {"nvidia.com/gpu": SHARES_PER_GPU})

    async def admission(self, namespace: str, *, subject: str, caller: str, models: Sequence[ModelRef]) -> AdmissionConfig:
        return self.admission_config

    async def gateway(self, principal: Principal, ref: ModelRef) -> GatewayConfig:
        return self.gateway_config

    async def weights(self, principal: Principal, ref: ModelRef) -> WeightsConfig:
        return self.weights_config

    async def lineage(self, principal: Principal, ref: ModelRef) -> LineageConfig:
        return self.lineage_config

    async def bundle(self, tenant: str) -> BundleConfig:
        return self.bundle_config

    async def requests_per_minute(self, tenant: str, team: str | None, key_id: str) -> int:
        return self.rpm

    async def accelerators(self) -> Mapping[str, int]:
        return self.table
