"""The operator's configuration as a typed document: what every section means, and what is refused.

Strict and closed: an unknown key, a wrong type or a value that contradicts another one is refused with its place. The
document is data for decisions, so everything Rego must not parse is read here (GPU amounts, times, names).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from core.decision import DOMAINS, STOPS
from core.errors import BadInput
from core.inputs import MAX_INTEGER
from core.names import check_name, shares_of

Path = tuple[str, ...]
"""A place in the document: map keys and, for the items of keyed lists, their key (`policies.config_overlay`)."""

MODE_SCOPES = ("tenant", "team", "namespace", "model")
"""What narrows a mode, the widest first: this is their order of precedence too."""

UNSTOPPABLE = "an emergency stop has no mode and no exemption; unfreeze what is frozen (portcullis unfreeze)"

MAX_ITEMS = 10_000
"""Items of one list inside an item: everything beyond is a mistake or an attack on the process that reads it."""

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_RULE = re.compile(rf"(?:{'|'.join(DOMAINS)})/[a-z0-9][a-z0-9-]{{0,99}}\Z")
_RESOURCE = re.compile(r"(?=.{1,253}/)[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
_DEVICE_CLASS = ".deviceclass.resource.k8s.io/devices"
_REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?\Z")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*\Z")
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
_CALLER = re.compile(r"[!#-~]{1,160}\Z")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*\Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)\Z")


def _matching(pattern: re.Pattern[str], meaning: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.match(value):
            raise ValueError(f"{value[:80]!r} is not {meaning}")
        return value

    return AfterValidator(check)


def _reading(read: Callable[[str], Any]) -> AfterValidator:
    """A check by one of the core's readers, whose BadInput becomes what pydantic expects."""

    def check(value: str) -> str:
        try:
            read(value)
        except BadInput as error:
            raise ValueError(error.message) from error
        return value

    return AfterValidator(check)


def unix(text: str) -> int:
    """`2027-01-31T00:00:00Z` as Unix seconds (RFC 3339, whole seconds, a zone is needed). BadInput for anything else."""
    unreadable = BadInput(f"{text[:40]!r} is not a time; write it as 2027-01-31T00:00:00Z")
    if not _TIME.match(text):
        raise unreadable
    try:
        moment = int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError) as error:
        raise unreadable from error
    if moment < 0:
        raise BadInput(f"{text} lies before 1970")
    return moment


def show_time(seconds: int) -> str:
    """Unix seconds in the one form that this project writes."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _amount_text(value: Any) -> Any:
    # 0.1 as a binary float is not one tenth, so a fraction must come as text.
    if isinstance(value, float):
        raise ValueError('write fractions in quotes: "0.5" or "3/7"')  # noqa: TRY004  (pydantic wants ValueError)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _amount(text: str) -> None:
    if shares_of(text) > MAX_INTEGER:
        raise BadInput(f"{text[:40]} GPUs are more than can be counted")


def check_model_scope(text: str) -> str:
    """`text` itself when it is NAME or NAME@VERSION; BadInput otherwise."""
    name, at, version = text.partition("@")
    check_name(name, "model name")
    if at:
        check_name(version, "model version")
    return text


_ONE_LINE = _matching(_PRINTABLE, "printable text on one line")
Name = Annotated[str, _reading(lambda text: check_name(text, "name"))]
Namespace = Annotated[str, _matching(_NAMESPACE, "a namespace (RFC 1123 label: a-z, 0-9 and '-', at most 63)")]
RuleId = Annotated[str, _matching(_RULE, f"a rule id (DOMAIN/rule-name, DOMAIN one of {', '.join(DOMAINS)})")]
Resource = Annotated[str, _matching(_RESOURCE, "an extended resource name such as nvidia.com/gpu")]
Amount = Annotated[str, Field(max_length=64), BeforeValidator(_amount_text), _reading(_amount)]
Rate = Annotated[int, Field(ge=0, le=10_000_000)]
Time = Annotated[str, _reading(unix)]
Line = Annotated[str, Field(min_length=1, max_length=256), _ONE_LINE]
Reason = Annotated[str, Field(min_length=1, max_length=1000), _ONE_LINE]
ModelScope = Annotated[str, _reading(check_model_scope)]
"""`NAME` for every version of a model, `NAME@VERSION` for one."""
HeaderName = Annotated[str, _matching(_HEADER_NAME, "a header name in lower case")]


def check_target(text: str) -> str:
    """`text` itself when it names what can be frozen; BadInput otherwise."""
    kind, _, subject = text.partition(":")
    if kind == "model":
        check_model_scope(subject)
    elif kind == "tenant":
        check_name(subject, "tenant")
    elif kind != "caller" or not _CALLER.match(subject):
        raise BadInput(f"{text[:160]!r} cannot be frozen; write model:NAME, model:NAME@VERSION, caller:ID or tenant:NAME")
    return text


Target = Annotated[str, _reading(check_target)]


class Section(BaseModel):
    """Strict (no coercion), frozen, closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ImagePlace(Section):
    """An approved registry, and in it this repository or anything below; no repository means all of it."""

    registry: Annotated[str, Field(max_length=253), _matching(_REGISTRY, "a registry host")]
    repository: Annotated[str, Field(max_length=255)] = ""

    def problem(self) -> str | None:
        if self.repository and not _REPOSITORY.match(self.repository):
            return f"{self.repository[:80]!r} is not a repository path (OCI: lower case, parts joined by '/')"
        return None


class Team(Section):
    namespaces: Annotated[list[Namespace], Field(max_length=MAX_ITEMS)] = []
    gpu_quota: Amount | None = None
    """GPUs ("4", "0.5", "3/7") that the team's namespaces may hold together. None: no limit was set, which denies."""
    requests_per_minute: Rate | None = None
    """For each key of the team."""


class KeyLimit(Section):
    requests_per_minute: Rate


class Tenant(Section):
    images: Annotated[list[ImagePlace], Field(max_length=1000)] = []
    require_image_digest: bool = False
    required_approvals: Annotated[int, Field(ge=2, le=100)] = 2
    requests_per_minute: Rate | None = None
    """For each key whose team sets nothing."""
    teams: dict[Name, Team] = {}
    keys: dict[Name, KeyLimit] = {}
    """Limits of single API keys, by key id (`K…`); they win over the team's."""


class GrantRule(Section):
    """A right to a model: to call it (`gateway`) or to receive the key of its weights (`weights`)."""

    id: Name
    tenant: Name
    domain: Literal["gateway", "weights"]
    model: Name
    version: Name | None = None
    teams: Annotated[list[Name], Field(max_length=1000)] = []
    callers: Annotated[list[Line], Field(max_length=1000)] = []
    """Principal ids, such as `key:K…`; they leave this room as references only."""
    roles: Annotated[list[Line], Field(max_length=1000)] = []


class ModeRule(Section):
    """The mode of one rule: for everything, or narrowed by any of `tenant`, `team` (of that tenant), `namespace` and `model`.

    The narrower wins: what names the model wins over what does not; where both or neither do, what names the namespace; then
    the team; then the tenant; then the general one. `NAME@VERSION` wins over `NAME`. Of the modes that a workload's several
    models bring, the strictest counts (enforce, warn, dryrun, off), so that one model cannot loosen what another is held to.
    """

    rule: RuleId
    mode: Literal["enforce", "warn", "dryrun", "off"]
    tenant: Name | None = None
    team: Name | None = None
    namespace: Namespace | None = None
    model: ModelScope | None = None


class ExemptionRule(Section):
    """A permission to break one rule. Without owner, reason, ticket and an expiry ahead it does not count (Rego decides)."""

    id: Name
    rule: RuleId
    tenant: Name
    owner: Line | None = None
    reason: Reason | None = None
    ticket: Line | None = None
    expires: Time | None = None
    namespaces: Annotated[list[Namespace], Field(max_length=MAX_ITEMS)] = []
    """Empty: every namespace of the tenant."""
    teams: Annotated[list[Name], Field(max_length=1000)] = []
    """Empty: every team of the tenant."""
    models: Annotated[list[ModelScope], Field(max_length=1000)] = []
    """Empty: every model. Where a workload names several, each of them must be among these."""
    subjects: Annotated[list[Line], Field(min_length=1, max_length=1000)]


ExemptionState = Literal["active", "expired", "ownerless", "incomplete"]


def state_of(rule: ExemptionRule, now_unix: int) -> ExemptionState:
    """`ownerless` and `incomplete` ones never count; an `expired` one no longer does."""
    if rule.owner is None or not rule.owner.strip():
        return "ownerless"
    if rule.expires is None or rule.ticket is None or rule.reason is None or not rule.reason.strip():
        return "incomplete"
    return "active" if unix(rule.expires) > now_unix else "expired"


class ObligationRule(Section):
    """What a door must do with every allowed call of this tenant."""

    tenant: Name
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    log_retention_days: Annotated[int, Field(ge=0, le=36_600)] | None = None
    headers: dict[HeaderName, Line] = {}


class FreezeRule(Section):
    """An emergency stop: of a model (`model:NAME`, `model:NAME@VERSION`), of a caller (`caller:ID`) or of the tenant itself."""

    tenant: Name
    target: Target
    since: Time
    reason: Reason


class Document(Section):
    """Everything an operator configures. The first six sections decide, the rest is the ground they stand on."""

    tenants: dict[Name, Tenant] = {}
    grants: list[GrantRule] = []
    modes: list[ModeRule] = []
    exemptions: list[ExemptionRule] = []
    freezes: list[FreezeRule] = []
    obligations: list[ObligationRule] = []
    accelerators: dict[Resource, Amount] = {}
    controller_namespaces: list[Namespace] = []
    requests_per_minute: Rate = 60
    """For each key for which neither its own entry, its team nor its tenant sets a number."""


def problems(document: Document, rules: Collection[str] | None = None) -> Iterator[tuple[Path, str]]:
    """Contradictions between sections, each with its place; nothing when the document can be used.

    `rules`: the ids that there are. A mode or an exemption for another one would do nothing, which nobody who writes it means.
    """
    if rules is not None:
        yield from _unknown_rules(document, rules)
    for name, tenant in document.tenants.items():
        for index, image in enumerate(tenant.images):
            if found := image.problem():
                yield ("tenants", name, "images", str(index), "repository"), found
    owners: dict[str, tuple[str, str]] = {}
    yield from _claims(document, owners)
    for grant in document.grants:
        yield from _grant_problems(document, grant)
    yield from _unswitchable(document)
    for mode in document.modes:
        yield from _scope_problems(document, mode, owners)
    for exemption in document.exemptions:
        yield from _exemption_problems(document, exemption, owners)
    for freeze in document.freezes:
        if freeze.target.startswith("tenant:") and freeze.target != f"tenant:{freeze.tenant}":
            yield (
                ("freezes", freeze_key(freeze.tenant, freeze.target), "tenant"),
                "a tenant is frozen by a freeze of its own; tenant and target name the same one",
            )
    yield from _free(document)
    for obligation in document.obligations:
        if obligation.tenant not in document.tenants:
            yield ("obligations", obligation.tenant), _unknown_tenant(obligation.tenant)


def _free(document: Document) -> Iterator[tuple[Path, str]]:
    for resource, share in document.accelerators.items():
        # A claim may ask for devices that are no accelerators (network cards), and only a price can say so.
        if shares_of(share) == 0 and not resource.endswith(_DEVICE_CLASS):
            yield (
                ("accelerators", resource),
                "an accelerator that costs nothing would escape every quota; leave it out of the table or give its share",
            )


def _unknown_rules(document: Document, rules: Collection[str]) -> Iterator[tuple[Path, str]]:
    named: list[tuple[Path, str]] = [(("modes", mode_key(vars(mode)), "rule"), mode.rule) for mode in document.modes]
    named += [(("exemptions", exemption.id, "rule"), exemption.rule) for exemption in document.exemptions]
    for place, rule in named:
        if rule not in rules:
            near = difflib.get_close_matches(rule, rules, n=1)
            yield (
                place,
                f"there is no rule {rule}; {f'did you mean {near[0]}' if near else 'portcullis policy list names them'}",
            )


def _unswitchable(document: Document) -> Iterator[tuple[Path, str]]:
    """The rules of the domain `bundle` judge who may change rules: whoever could switch them off would need nobody else."""
    why = "the rules of the domain bundle always enforce: they decide who may change the others"
    for mode in document.modes:
        if mode.rule.startswith("bundle/"):
            yield ("modes", mode_key(mode.model_dump()), "rule"), why
    for exemption in document.exemptions:
        if exemption.rule.startswith("bundle/"):
            yield ("exemptions", exemption.id, "rule"), why


def _claims(document: Document, owners: dict[str, tuple[str, str]]) -> Iterator[tuple[Path, str]]:
    """Fills `owners`; a namespace that two teams claim would have two quotas, so it is refused."""
    for tenant_name, tenant in document.tenants.items():
        for team_name, team in tenant.teams.items():
            for namespace in team.namespaces:
                other = owners.setdefault(namespace, (tenant_name, team_name))
                if other != (tenant_name, team_name):
                    place = ("tenants", tenant_name, "teams", team_name, "namespaces")
                    yield place, f"namespace {namespace} belongs to team {other[1]} of {other[0]} already; give it to one team"


def _grant_problems(document: Document, grant: GrantRule) -> Iterator[tuple[Path, str]]:
    place = ("grants", grant.id)
    tenant = document.tenants.get(grant.tenant)
    if tenant is None:
        yield (*place, "tenant"), _unknown_tenant(grant.tenant)
        return
    for team in grant.teams:
        if team not in tenant.teams:
            yield (*place, "teams"), f"{grant.tenant} has no team {team}; declare it under tenants.{grant.tenant}.teams"
    if not (grant.teams or grant.callers or grant.roles):
        yield place, "grants nothing to anyone; name teams, callers or roles"


def _scope_problems(document: Document, mode: ModeRule, owners: dict[str, tuple[str, str]]) -> Iterator[tuple[Path, str]]:
    place = ("modes", mode_key(vars(mode)))
    if mode.rule in STOPS:
        yield (*place, "rule"), UNSTOPPABLE
    if mode.tenant is not None and mode.tenant not in document.tenants:
        yield (*place, "tenant"), _unknown_tenant(mode.tenant)
    if mode.team is not None:
        yield from _team_problems(document, place, mode.tenant, mode.team)
    if mode.namespace is None:
        return
    if not mode.rule.startswith("admission/"):
        yield (*place, "namespace"), f"only admission rules know namespaces; {mode.rule} can be narrowed by tenant"
    owner = owners.get(mode.namespace)
    if mode.tenant is not None and owner is not None and owner[0] != mode.tenant:
        yield (*place, "namespace"), f"namespace {mode.namespace} belongs to {owner[0]}, not to {mode.tenant}"


def _exemption_problems(
    document: Document, exemption: ExemptionRule, owners: dict[str, tuple[str, str]]
) -> Iterator[tuple[Path, str]]:
    place = ("exemptions", exemption.id)
    if exemption.rule in STOPS:
        yield (*place, "rule"), UNSTOPPABLE
    for team in exemption.teams:
        yield from _team_problems(document, place, exemption.tenant, team)
    if exemption.tenant not in document.tenants:
        yield (*place, "tenant"), _unknown_tenant(exemption.tenant)
    if exemption.namespaces and not exemption.rule.startswith("admission/"):
        yield (*place, "namespaces"), f"only admission rules know namespaces; leave them out for {exemption.rule}"
    for namespace in exemption.namespaces:
        owner = owners.get(namespace)
        if owner is not None and owner[0] != exemption.tenant:
            yield (*place, "namespaces"), f"namespace {namespace} belongs to {owner[0]}, not to {exemption.tenant}"


def _team_problems(document: Document, place: Path, tenant: str | None, team: str) -> Iterator[tuple[Path, str]]:
    if tenant is None:
        yield (*place, "team"), f"several tenants may have a team {team}; name the tenant too"
    elif tenant in document.tenants and team not in document.tenants[tenant].teams:
        yield (*place, "team"), f"{tenant} has no team {team}; declare it under tenants.{tenant}.teams"


def _unknown_tenant(name: str) -> str:
    return f"there is no tenant {name}; declare it under tenants"


def mode_key(mode: Mapping[str, Any]) -> str:
    """How an item of `modes` is named in paths: `RULE`, or `RULE[tenant=T,team=M,namespace=N,model=X]` with what narrows it."""
    narrowed = ",".join(f"{key}={mode[key]}" for key in MODE_SCOPES if mode.get(key) is not None)
    return f"{mode['rule']}[{narrowed}]" if narrowed else str(mode["rule"])


def freeze_key(tenant: str, target: str) -> str:
    """How an item of `freezes` is named in paths: `TENANT/TARGET`."""
    return f"{tenant}/{target}"
