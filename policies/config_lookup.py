"""One revision of the operator's configuration, indexed: what concerns a request is found by key, never by a scan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from core.decision import Domain
from core.inputs import (
    AdmissionConfig,
    BundleConfig,
    Config,
    Exemption,
    Frozen,
    GatewayConfig,
    Grant,
    ImageSource,
    LineageConfig,
    Obligations,
    WeightsConfig,
)
from core.names import ModelRef, shares_of
from core.ports import Commitments
from core.principal import Principal
from policies.config import Document, ExemptionRule, GrantRule, Tenant, unix

MAX_ANSWERS = 10_000
"""Answers kept until the next look at the sources; beyond that they are made anew."""

_C = TypeVar("_C", bound=Config)
_S = TypeVar("_S", AdmissionConfig, GatewayConfig, WeightsConfig)
Scope = tuple[str | None, str | None, str | None, str | None]
"""What narrows a mode: tenant, team, namespace, model."""
_Place = tuple[str, str | None, str, str, str]
"""Where an exemption is found: domain, tenant, kind and name of its narrowest scope, subject."""
STRICTEST = ("enforce", "warn", "dryrun", "off")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request is about, as far as configuration is narrowed by it."""

    domain: Domain
    tenant: str | None
    team: str | None
    models: tuple[ModelRef, ...]
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class _Exempt:
    """An exemption with its scopes as sets, so that a list of ten thousand namespaces costs a look-up nothing."""

    rule: ExemptionRule
    namespaces: frozenset[str]
    teams: frozenset[str]
    models: frozenset[str]

    @classmethod
    def of(cls, rule: ExemptionRule) -> _Exempt:
        return cls(rule, frozenset(rule.namespaces), frozenset(rule.teams), frozenset(rule.models))

    def places(self) -> Iterator[_Place]:
        """Under its narrowest scope only, once for each subject."""
        domain = self.rule.rule.partition("/")[0]
        scopes: list[tuple[str | None, str, str]] = [(self.rule.tenant, "tenant", "")]
        if self.models:
            scopes = [(self.rule.tenant, "model", name) for name in self.models]
        elif self.namespaces:
            scopes = [(None, "namespace", name) for name in self.namespaces]
        elif self.teams:
            scopes = [(self.rule.tenant, "team", name) for name in self.teams]
        for scope in scopes:
            for subject in dict.fromkeys(self.rule.subjects):
                yield (domain, *scope, subject)

    def covers(self, asked: _Asked) -> bool:
        return (
            (not self.namespaces or asked.namespace in self.namespaces)
            and (not self.teams or asked.team in self.teams)
            and (not self.models or all(self.models & {ref.name, str(ref)} for ref in asked.models))
        )


Modes = dict[str, dict[Scope, dict[str, str]]]
_Grants = dict[tuple[str, str, str], list[GrantRule]]
_Exemptions = dict[_Place, list[_Exempt]]


class Lookup:
    """Answers of one revision. Built once per revision; immutable but for the memory of answers given.

    The people in an answer are references, asked from `commitments` when an answer is made. `forget` drops the answers, so that
    a reference erased from the commitments does not outlive the next look at the sources. Indexes of sections that are the very
    ones of `previous` are taken over from it: what an operator changes is small beside what stands.
    """

    def __init__(
        self,
        document: Document,
        revision: str,
        commitments: Commitments,
        *,
        home: str | None = None,
        previous: Lookup | None = None,
    ) -> None:
        self.revision = revision
        self.document = document
        self._commitments = commitments
        self._home = home
        self._answers: dict[tuple[str | None, ...], Config] = {}
        old = previous

        def same(section: str) -> bool:
            return old is not None and getattr(old.document, section) is getattr(document, section)

        self.accelerators: Mapping[str, int] = old.accelerators if old and same("accelerators") else _shares(document)
        self._namespaces: dict[str, tuple[str, str]] = old._namespaces if old and same("tenants") else namespaces_of(document)
        self._modes: Modes = old._modes if old and same("modes") else modes_by_scope(document)
        self._grants: _Grants = old._grants if old and same("grants") else _grants(document)
        self._exemptions: _Exemptions = old._exemptions if old and same("exemptions") else _exemptions(document)
        self._frozen: dict[tuple[str, str, str], int] = old._frozen if old and same("freezes") else _frozen(document)
        self._obligations = {rule.tenant: rule for rule in document.obligations}

    def forget(self) -> None:
        self._answers = {}

    async def admission(self, namespace: str, *, subject: str, caller: str, models: Sequence[ModelRef]) -> AdmissionConfig:
        tenant, team = self._namespaces.get(namespace, (None, None))
        asked = _Asked("admission", tenant, team, tuple(dict.fromkeys(models)), namespace)
        key = ("admission", namespace, *map(str, asked.models))
        found = await self._answer(key, lambda: self._admission(asked))
        exempt = self._exempt(asked, subject)
        if exempt:
            both = [*found.exemptions, *[await self._exemption(rule) for rule in exempt]]
            # One that names the subject and `*` stands once.
            once = {rule.id: rule for rule in both}
            found = found.model_copy(update={"exemptions": [once[name] for name in sorted(once)]})
        return await self._stopped(found, tenant or self._home, caller)

    async def gateway(self, principal: Principal, ref: ModelRef) -> GatewayConfig:
        tenant = principal.tenant

        async def make() -> GatewayConfig:
            rule = self._obligations.get(tenant)
            asked = _Asked("gateway", tenant, principal.team, (ref,))
            return GatewayConfig(
                **await self._common(asked, str(ref)),
                frozen=self._frozen_for(asked),
                grants=await self._granted("gateway", tenant, ref),
                obligations=Obligations(
                    max_tokens=rule.max_tokens, log_retention_days=rule.log_retention_days, headers=dict(rule.headers)
                )
                if rule
                else Obligations(),
            )

        found = await self._answer(("gateway", tenant, principal.team, ref.name, ref.version), make)
        return await self._stopped(found, tenant, principal.id)

    async def weights(self, principal: Principal, ref: ModelRef) -> WeightsConfig:
        tenant = principal.tenant

        async def make() -> WeightsConfig:
            asked = _Asked("weights", tenant, principal.team, (ref,))
            return WeightsConfig(
                **await self._common(asked, str(ref)),
                frozen=self._frozen_for(asked),
                grants=await self._granted("weights", tenant, ref),
            )

        found = await self._answer(("weights", tenant, principal.team, ref.name, ref.version), make)
        return await self._stopped(found, tenant, principal.id)

    async def lineage(self, principal: Principal, ref: ModelRef) -> LineageConfig:
        asked = _Asked("lineage", principal.tenant, principal.team, (ref,))

        async def make() -> LineageConfig:
            return LineageConfig(**await self._common(asked, str(ref)))

        return await self._answer(("lineage", principal.tenant, principal.team, ref.name, ref.version), make)

    async def bundle(self, tenant: str) -> BundleConfig:
        known = self.document.tenants.get(tenant) or Tenant()
        return BundleConfig(revision=self.revision, required_approvals=known.required_approvals)

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

    async def _answer(self, key: tuple[str | None, ...], make: Callable[[], Awaitable[_C]]) -> _C:
        answers = self._answers
        found = answers.get(key)
        if found is None:
            found = await make()
            if len(answers) < MAX_ANSWERS:
                answers[key] = found
        return cast("_C", found)

    async def _admission(self, asked: _Asked) -> AdmissionConfig:
        tenant = self.document.tenants[asked.tenant] if asked.tenant is not None else Tenant()
        quota = tenant.teams[asked.team].gpu_quota if asked.team is not None else None
        return AdmissionConfig(
            **await self._common(asked, "*"),
            tenant=asked.tenant,
            team=asked.team,
            gpu_limit_shares=None if quota is None else shares_of(quota),
            images=[ImageSource(registry=place.registry, repository=place.repository) for place in tenant.images],
            require_image_digest=tenant.require_image_digest,
            controller_namespaces=list(self.document.controller_namespaces),
            frozen=self._frozen_for(asked),
        )

    async def _common(self, asked: _Asked, subject: str) -> dict[str, Any]:
        """The fields of `core.inputs.Config`: only what belongs to this request, so that inputs stay alike."""
        known = self.document.tenants.get(asked.tenant) if asked.tenant is not None else None
        exempt = {rule.id: rule for rule in [*self._exempt(asked, "*"), *self._exempt(asked, subject)]}
        return {
            "revision": self.revision,
            "modes": self._modes_for(asked),
            "exemptions": [await self._exemption(exempt[name]) for name in sorted(exempt)],
            "required_approvals": (known or Tenant()).required_approvals,
        }

    def _modes_for(self, asked: _Asked) -> dict[str, str]:
        """What differs from `enforce`, which is what silence means; of several models' modes the strictest."""
        known = self._modes.get(asked.domain)
        if not known:
            return {}
        place = (asked.tenant, asked.team, asked.namespace)
        each = [narrowest(known, *place, None if ref is None else str(ref)) for ref in asked.models or (None,)]
        rules = sorted(set[str]().union(*each))
        modes = {rule: min((found.get(rule, "enforce") for found in each), key=STRICTEST.index) for rule in rules}
        return {rule: mode for rule, mode in modes.items() if mode != "enforce"}

    def _exempt(self, asked: _Asked, subject: str) -> list[ExemptionRule]:
        """The exemptions for exactly this subject (`*`: those for all) in the scope of the request, expired ones too."""
        scopes: list[tuple[str | None, str, str]] = []
        if asked.tenant is not None:
            scopes.append((asked.tenant, "tenant", ""))
            scopes += [(asked.tenant, "model", name) for ref in asked.models for name in (ref.name, str(ref))]
        if asked.tenant is not None and asked.team is not None:
            scopes.append((asked.tenant, "team", asked.team))
        if asked.namespace is not None:
            scopes.append((None, "namespace", asked.namespace))
        found = [rule for scope in scopes for rule in self._exemptions.get((asked.domain, *scope, subject), ())]
        return [exempt.rule for exempt in found if exempt.covers(asked)]

    def _frozen_for(self, asked: _Asked) -> list[Frozen]:
        """The stops of the tenant and of the models that the request names."""
        tenant = asked.tenant
        if tenant is None:
            return []
        targets = [("tenant", tenant), *(("model", name) for ref in asked.models for name in (ref.name, str(ref)))]
        return [
            Frozen(kind=cast("Any", kind), subject=subject, since_unix=since)
            for kind, subject in dict.fromkeys(targets)
            if (since := self._frozen.get((tenant, kind, subject))) is not None
        ]

    async def _stopped(self, found: _S, tenant: str | None, caller: str) -> _S:
        """`found` with the stop of this caller, where there is one; the caller enters as a reference."""
        since = self._frozen.get((tenant, "caller", caller)) if tenant is not None else None
        if since is None or tenant is None:
            return found
        stop = Frozen(kind="caller", subject=await self._commitments.ref(tenant, caller), since_unix=since)
        return found.model_copy(update={"frozen": [*found.frozen, stop]})

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


def _shares(document: Document) -> dict[str, int]:
    return {name: shares_of(share) for name, share in document.accelerators.items()}


def namespaces_of(document: Document) -> dict[str, tuple[str, str]]:
    return {
        namespace: (tenant_name, team_name)
        for tenant_name, tenant in document.tenants.items()
        for team_name, team in tenant.teams.items()
        for namespace in team.namespaces
    }


def modes_by_scope(document: Document) -> Modes:
    found: Modes = {}
    for mode in document.modes:
        scope = (mode.tenant, mode.team, mode.namespace, mode.model)
        found.setdefault(mode.rule.partition("/")[0], {}).setdefault(scope, {})[mode.rule] = mode.mode
    return found


def narrowest(
    known: Mapping[Scope, Mapping[str, str]], tenant: str | None, team: str | None, namespace: str | None, model: str | None
) -> dict[str, str]:
    """The mode of each rule at one place, the order of precedence being `policies.config.ModeRule`'s. `model`: NAME@VERSION, or
    NAME for a version that no mode names."""
    modes: dict[str, str] = {}
    for named in dict.fromkeys((None, None if model is None else model.partition("@")[0], model)):
        for within in dict.fromkeys((None, namespace)):
            for group in dict.fromkeys((None, team)):
                for owner in dict.fromkeys((None, tenant)):
                    modes.update(known.get((owner, group, within, named), {}))
    return modes


def _grants(document: Document) -> _Grants:
    found: _Grants = {}
    for grant in document.grants:
        found.setdefault((grant.domain, grant.tenant, grant.model), []).append(grant)
    return found


def _exemptions(document: Document) -> _Exemptions:
    found: _Exemptions = {}
    for exemption in document.exemptions:
        exempt = _Exempt.of(exemption)
        for place in exempt.places():
            found.setdefault(place, []).append(exempt)
    return found


def _frozen(document: Document) -> dict[tuple[str, str, str], int]:
    found: dict[tuple[str, str, str], int] = {}
    for freeze in document.freezes:
        kind, _, subject = freeze.target.partition(":")
        found[freeze.tenant, kind, subject] = unix(freeze.since)
    return found
