"""One revision of the operator's configuration, indexed: what concerns a request is found by key, never by a scan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from core.canonical import digest
from core.decision import Domain
from core.inputs import (
    AdmissionConfig,
    Config,
    Exemption,
    GatewayConfig,
    Grant,
    ImageSource,
    LineageConfig,
    Obligations,
    WeightsConfig,
)
from core.names import ModelRef, shares_of
from core.ports import Commitments
from policies.config import Document, ExemptionRule, GrantRule, Tenant, unix

MAX_ANSWERS = 10_000
"""Answers kept until the next look at the sources; beyond that they are made anew."""

_C = TypeVar("_C", bound=Config)


class Lookup:
    """Answers of one revision. Built once per revision; immutable but for the memory of answers given.

    The people in an answer are references, asked from `commitments` when an answer is made. `forget` drops the answers, so that
    a reference erased from the commitments does not outlive the next look at the sources.
    """

    def __init__(self, document: Document, shown: Mapping[str, Any], commitments: Commitments) -> None:
        self.revision = digest(dict(shown))
        self.document = document
        self.accelerators: Mapping[str, int] = {name: shares_of(share) for name, share in document.accelerators.items()}
        self._commitments = commitments
        self._answers: dict[tuple[str, ...], Config] = {}
        self._namespaces = {
            namespace: (tenant_name, team_name)
            for tenant_name, tenant in document.tenants.items()
            for team_name, team in tenant.teams.items()
            for namespace in team.namespaces
        }
        self._modes: dict[tuple[str, str | None, str | None], dict[str, str]] = {}
        for mode in document.modes:
            domain = mode.rule.partition("/")[0]
            self._modes.setdefault((domain, mode.tenant, mode.namespace), {})[mode.rule] = mode.mode
        self._grants: dict[tuple[str, str, str], list[GrantRule]] = {}
        for grant in document.grants:
            self._grants.setdefault((grant.domain, grant.tenant, grant.model), []).append(grant)
        self._exemptions: dict[tuple[str, str | None, str | None], list[ExemptionRule]] = {}
        for exemption in document.exemptions:
            self._index_exemption(exemption)
        self._obligations = {rule.tenant: rule for rule in document.obligations}

    def _index_exemption(self, exemption: ExemptionRule) -> None:
        domain = exemption.rule.partition("/")[0]
        keys: list[tuple[str, str | None, str | None]] = [(domain, None, name) for name in dict.fromkeys(exemption.namespaces)]
        for key in keys or [(domain, exemption.tenant, None)]:
            self._exemptions.setdefault(key, []).append(exemption)

    def forget(self) -> None:
        self._answers = {}

    async def admission(self, namespace: str) -> AdmissionConfig:
        return await self._answer(("admission", namespace), lambda: self._admission(namespace))

    async def gateway(self, tenant: str, ref: ModelRef) -> GatewayConfig:
        async def make() -> GatewayConfig:
            rule = self._obligations.get(tenant)
            return GatewayConfig(
                **await self._common("gateway", tenant),
                grants=await self._granted("gateway", tenant, ref),
                obligations=Obligations(
                    max_tokens=rule.max_tokens, log_retention_days=rule.log_retention_days, headers=dict(rule.headers)
                )
                if rule
                else Obligations(),
            )

        return await self._answer(("gateway", tenant, ref.name, ref.version), make)

    async def weights(self, tenant: str, ref: ModelRef) -> WeightsConfig:
        async def make() -> WeightsConfig:
            return WeightsConfig(**await self._common("weights", tenant), grants=await self._granted("weights", tenant, ref))

        return await self._answer(("weights", tenant, ref.name, ref.version), make)

    async def lineage(self, tenant: str) -> LineageConfig:
        async def make() -> LineageConfig:
            return LineageConfig(**await self._common("lineage", tenant))

        return await self._answer(("lineage", tenant), make)

    def requests_per_minute(self, tenant: str, team: str | None, key_id: str) -> int:
        """The narrowest number that is set: the key's, its team's, its tenant's, the general one."""
        found = self.document.tenants.get(tenant)
        if found is None:
            return self.document.requests_per_minute
        if key_id in found.keys:
            return found.keys[key_id].requests_per_minute
        own = found.teams.get(team) if team is not None else None
        for value in (own.requests_per_minute if own else None, found.requests_per_minute):
            if value is not None:
                return value
        return self.document.requests_per_minute

    async def _answer(self, key: tuple[str, ...], make: Callable[[], Awaitable[_C]]) -> _C:
        answers = self._answers
        found = answers.get(key)
        if found is None:
            found = await make()
            if len(answers) < MAX_ANSWERS:
                answers[key] = found
        return cast("_C", found)

    async def _admission(self, namespace: str) -> AdmissionConfig:
        tenant_name, team_name = self._namespaces.get(namespace, (None, None))
        tenant = self.document.tenants[tenant_name] if tenant_name is not None else Tenant()
        quota = tenant.teams[team_name].gpu_quota if team_name is not None else None
        return AdmissionConfig(
            **await self._common("admission", tenant_name, namespace),
            tenant=tenant_name,
            team=team_name,
            gpu_limit_shares=None if quota is None else shares_of(quota),
            images=[ImageSource(registry=place.registry, repository=place.repository) for place in tenant.images],
            require_image_digest=tenant.require_image_digest,
            controller_namespaces=list(self.document.controller_namespaces),
        )

    async def _common(self, domain: Domain, tenant: str | None, namespace: str | None = None) -> dict[str, Any]:
        """The fields of `core.inputs.Config`: only what belongs to this domain, so that inputs stay alike."""
        found = self._exemptions.get((domain, tenant, None), []) if tenant is not None else []
        if namespace is not None:
            found = [*found, *self._exemptions.get((domain, None, namespace), [])]
        known = self.document.tenants.get(tenant) if tenant is not None else None
        return {
            "revision": self.revision,
            "modes": self._modes_for(domain, tenant, namespace),
            "exemptions": [await self._exemption(rule) for rule in sorted(found, key=lambda rule: rule.id)],
            "required_approvals": (known or Tenant()).required_approvals,
        }

    def _modes_for(self, domain: Domain, tenant: str | None, namespace: str | None) -> dict[str, str]:
        """General, then the tenant's, the namespace's, and what names both; `enforce` is what silence means, so it is left out."""
        scopes: list[tuple[str | None, str | None]] = [(None, None)]
        if tenant is not None:
            scopes.append((tenant, None))
        if namespace is not None:
            scopes.append((None, namespace))
        if tenant is not None and namespace is not None:
            scopes.append((tenant, namespace))
        modes: dict[str, str] = {}
        for scope in scopes:
            modes.update(self._modes.get((domain, *scope), {}))
        return {rule: mode for rule, mode in sorted(modes.items()) if mode != "enforce"}

    async def _exemption(self, rule: ExemptionRule) -> Exemption:
        return Exemption(
            id=rule.id,
            rule=rule.rule,
            owner=None if rule.owner is None else await self._commitments.ref(rule.tenant, rule.owner),
            reason_given=rule.reason is not None and bool(rule.reason.strip()),
            ticket=rule.ticket,
            expires_unix=None if rule.expires is None else unix(rule.expires),
            subjects=list(rule.subjects),
        )

    async def _granted(self, domain: Domain, tenant: str, ref: ModelRef) -> list[Grant]:
        found = self._grants.get((domain, tenant, ref.name), [])
        return [
            Grant(
                id=rule.id,
                model=rule.model,
                version=rule.version,
                teams=list(rule.teams),
                callers=[await self._commitments.ref(tenant, caller) for caller in rule.callers],
                roles=list(rule.roles),
            )
            for rule in found
            if rule.version in (None, ref.version)
        ]
