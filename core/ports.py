"""What a room may ask of another, as small protocols. Doors (`*/compose.py`) hand in objects that satisfy them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.decision import Decision, Domain
from core.inputs import AdmissionConfig, BundleConfig, GatewayConfig, LineageConfig, ModelFact, WeightsConfig
from core.names import ModelRef
from core.principal import Principal
from core.record import Entry, RecordKind


class Clock(Protocol):
    """Whole seconds since 1970, UTC. Decisions take time from here once and carry it in `input.now_unix`."""

    def now_unix(self) -> int: ...


class Engine(Protocol):
    """A policy engine with one bundle loaded (`policies.engine.load`)."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    def decide(self, domain: Domain, input: Mapping[str, Any]) -> Decision:
        """Never raises for what is in `input`: bad input, an engine's error or a time-out is a denial that says so."""
        ...

    async def decide_async(self, domain: Domain, input: Mapping[str, Any]) -> Decision: ...


class Commitments(Protocol):
    """People as salted commitments: one random salt per person and tenant, so erasing the salt erases the link."""

    async def ref(self, tenant: str, person: str) -> str:
        """The reference of `person` (a `Principal.id`), made on first use."""
        ...


class Recorder(Protocol):
    """The evidence log as rooms and doors see it. Both return the record's id, or raise EvidenceUnavailable: no record, no action."""

    async def event(self, entry: Entry) -> str: ...

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
        """Keeps `input` (sealed, by digest) so that the decision can be replayed, then appends the record."""
        ...


class ModelRegistry(Protocol):
    """What lineage knows of model versions, as facts for a decision."""

    async def model(self, tenant: str, ref: ModelRef) -> ModelFact | None: ...

    async def registered_digest(self, manifest_digest: str) -> ModelRef | None:
        """The version whose sealed manifest has this digest."""
        ...


@dataclass(frozen=True, slots=True)
class Placed:
    """What one `Deployments.place` changed, so that it can be taken back."""

    started: tuple[str, ...]
    ended: tuple[str, ...]
    mark: str = ""
    """Sorts before what later requests write, and after what was there."""


class Deployments(Protocol):
    """Which model versions the admitted workloads run, as lineage keeps it."""

    async def place(
        self,
        tenant: str,
        *,
        environment: str,
        workload: str,
        models: Sequence[ModelRef],
        actor: str,
        decision_id: str,
        replaces: bool = True,
    ) -> Placed:
        """From now on this workload runs exactly these versions (those of them that are registered); none ends it.

        Without `replaces` what it ran before stays too. Unavailable or Conflict, and then nothing has changed.
        """
        ...

    async def take_back(self, placed: Placed) -> None:
        """Makes it as it was before `place`, as far as no later request has changed it."""
        ...


class ApproverDirectory(Protocol):
    """Who may approve: identity's registered people and their keys."""

    async def approver(self, tenant: str, key_id: str) -> tuple[Principal, bytes, bool] | None:
        """The person, their Ed25519 public key (raw, 32 bytes) and whether the key is revoked; None when not registered."""
        ...


class OperatorConfig(Protocol):
    """The operator's versioned configuration, looked up by key: what concerns one request, with its revision.

    Callers of grants and of freezes and owners of exemptions come out as references. `principal` is who asks: modes, exemptions
    and freezes may be narrowed to their tenant, team or themselves, and to the model.
    """

    async def admission(self, namespace: str, *, subject: str, caller: str, models: Sequence[ModelRef]) -> AdmissionConfig:
        """`subject` is `Kind/name`, `caller` the user name that the API server sent, `models` what the workload names."""
        ...

    async def gateway(self, principal: Principal, ref: ModelRef) -> GatewayConfig: ...

    async def weights(self, principal: Principal, ref: ModelRef) -> WeightsConfig: ...

    async def lineage(self, principal: Principal, ref: ModelRef) -> LineageConfig: ...

    async def bundle(self, tenant: str) -> BundleConfig: ...

    async def requests_per_minute(self, tenant: str, team: str | None, key_id: str) -> int: ...

    async def accelerators(self) -> Mapping[str, int]:
        """Kubernetes resource name to shares per unit of it (`nvidia.com/gpu` → 20160)."""
        ...
