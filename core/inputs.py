"""What a decision is made from: the typed input of each domain.

`Engine.decide` takes `{"now_unix", "mandatory", "request", "facts", "config"}`. Doors build these types; the JSON schemas in
`policies/schemas/` are generated from them (`scripts/schemas`), and `Engine.decide` refuses whatever does not fit them
before a policy sees it.

Rules for a field: everything is already parsed (Rego parses nothing); times are Unix seconds; GPU amounts are integer
shares; people are references (`ports.Commitments`), never names; what could not be found out is absent, and a rule that
needs it is then not `checked`, which denies.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.decision import MANDATORY, Domain
from core.principal import Principal

MAX_INTEGER = 2**53 - 1
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Text = Annotated[str, Field(max_length=4096)]


class Fact(BaseModel):
    """Strict (no coercion), frozen, closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PrincipalFact(Fact):
    """Who asks. `namespace` is a Kubernetes service account's own."""

    ref: Text
    kind: Literal["caller", "service_account", "user", "operator"]
    tenant: Text
    team: Text | None = None
    roles: list[Text] = []
    namespace: Text | None = None

    @classmethod
    def of(cls, principal: Principal, ref: str) -> PrincipalFact:
        """`principal` as policies may see it: under the reference `ref`, without its id."""
        return cls(
            ref=ref,
            kind=principal.kind,
            tenant=principal.tenant,
            team=principal.team,
            roles=sorted(principal.roles),
            namespace=principal.namespace,
        )


class ApprovalFact(Fact):
    """One valid signature of one registered person over one manifest digest."""

    person: Text
    manifest_digest: Text
    approved_at_unix: Count


class DatasetFact(Fact):
    name: Text
    version: Text
    licence: Text | None = None
    consent: Literal["given", "not_required", "withdrawn"]
    purposes: list[Text] = []


class CardFact(Fact):
    """`missing` names the mandatory fields that are empty; `purposes` restricts use when it is not empty."""

    complete: bool
    missing: list[Text] = []
    purposes: list[Text] = []


class ModelFact(Fact):
    """A registered version with everything that decides whether it may be used."""

    name: Text
    version: Text
    tenant: Text
    author: Text
    manifest_digest: Text | None = None
    card: CardFact | None = None
    approvals: list[ApprovalFact] = []
    datasets: list[DatasetFact] = []
    revoked: bool = False


class Exemption(Fact):
    """A permission to break one rule for a while. Counts only with owner, reason, ticket and an expiry ahead."""

    id: Text
    rule: Text
    owner: Text | None = None
    reason_given: bool = False
    ticket: Text | None = None
    expires_unix: Count | None = None
    subjects: list[Text] = []
    """Exact subjects it covers (`Deployment/chat`, `llama-3@7`); `*` covers all in the scope it was looked up for."""


class Config(Fact):
    """The operator's configuration that concerns this request. `modes` holds only what differs from `enforce`."""

    revision: Text
    modes: dict[Text, Text] = {}
    exemptions: list[Exemption] = []
    required_approvals: Annotated[int, Field(ge=2, le=100)] = 2


class Frozen(Fact):
    """An emergency stop that concerns this request: of a model (`NAME` or `NAME@VERSION`), a caller (a reference) or a tenant."""

    kind: Literal["model", "caller", "tenant"]
    subject: Text
    since_unix: Count


# --- admission ---------------------------------------------------------------------------------------------------


class Image(Fact):
    """`registry.acme.example/ml/serve:1@sha256:…`, read by the OCI reference grammar."""

    registry: Text
    repository: Text
    tag: Text | None = None
    digest: Text | None = None


class Container(Fact):
    """`image` is absent when it could not be read."""

    path: Text
    name: Text
    image: Image | None = None


class ModelUse(Fact):
    """A workload names a model; `name` and `version` are absent when the annotation could not be read."""

    path: Text
    name: Text | None = None
    version: Text | None = None


class WeightsUse(Fact):
    """A place that weights are loaded from. `sealed` with no `manifest_digest` means a sealed:// URI that names none."""

    path: Text
    scheme: Text
    sealed: bool
    manifest_digest: Text | None = None


class HostAccess(Fact):
    path: Text
    kind: Literal["host_network", "host_pid", "host_ipc", "host_path", "privileged", "gpu_without_request", "device_admin"]


class AdmissionRequest(Fact):
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    group: Text
    kind: Text
    known_kind: bool
    """False for a kind whose pod templates we cannot find; it is denied when `accelerators_found`."""
    accelerators_found: bool
    namespace: Text
    subject: Text
    """`Kind/name`."""
    principal: PrincipalFact
    gpu_shares: Count
    """What the whole object would hold after this operation, by `admission.charge`."""
    pod_path: Text = "spec"
    containers: list[Container] = []
    models: list[ModelUse] = []
    weights: list[WeightsUse] = []
    host_access: list[HostAccess] = []


class QuotaFact(Fact):
    """`used_shares`: held by the team now, this object's own previous charge not counted."""

    used_shares: Count


class AdmissionFacts(Fact):
    quota: QuotaFact | None = None
    models: list[ModelFact] | None = None
    """The registered ones among `request.models`; absent when the registry could not be asked."""


class ImageSource(Fact):
    """An approved place: this registry, and this repository or anything below it (`ml` covers `ml/serve`, not `mlx`)."""

    registry: Text
    repository: Text = ""


class AdmissionConfig(Config):
    tenant: Text | None = None
    team: Text | None = None
    """The team that the namespace belongs to; absent when it belongs to none."""
    gpu_limit_shares: Count | None = None
    images: list[ImageSource] = []
    require_image_digest: bool = False
    controller_namespaces: list[Text] = []
    """Namespaces whose service accounts act for others (the controllers of `kube-system`)."""
    frozen: list[Frozen] = []


class AdmissionInput(Fact):
    now_unix: Count
    mandatory: list[Text]
    request: AdmissionRequest
    facts: AdmissionFacts
    config: AdmissionConfig


# --- gateway -----------------------------------------------------------------------------------------------------


class GatewayRequest(Fact):
    """`model` and `version` are what the operator's upstream table says of the served name that the caller sent."""

    route: Text
    model: Text
    version: Text
    purpose: Text | None = None
    principal: PrincipalFact


class GatewayFacts(Fact):
    model: ModelFact | None = None


class Grant(Fact):
    """A right: these teams, callers or roles may use (gateway) or receive keys of (weights) this model.

    `version` absent covers every version. Looked up by tenant and model in Python; `callers` are references.
    """

    id: Text
    model: Text
    version: Text | None = None
    teams: list[Text] = []
    callers: list[Text] = []
    roles: list[Text] = []


class Obligations(Fact):
    """What a door must do when it allows."""

    max_tokens: Count | None = None
    log_retention_days: Count | None = None
    headers: dict[Text, Text] = {}


class GatewayConfig(Config):
    grants: list[Grant] = []
    obligations: Obligations = Obligations()
    frozen: list[Frozen] = []


class GatewayInput(Fact):
    now_unix: Count
    mandatory: list[Text]
    request: GatewayRequest
    facts: GatewayFacts
    config: GatewayConfig


# --- weights -----------------------------------------------------------------------------------------------------


class WeightsRequest(Fact):
    """A key is asked for, to open the sealed model whose manifest digest is `manifest_digest`."""

    action: Literal["release"]
    model: Text
    version: Text
    manifest_digest: Text
    principal: PrincipalFact


class WeightsFacts(Fact):
    model: ModelFact | None = None


class WeightsConfig(Config):
    grants: list[Grant] = []
    frozen: list[Frozen] = []


class WeightsInput(Fact):
    now_unix: Count
    mandatory: list[Text]
    request: WeightsRequest
    facts: WeightsFacts
    config: WeightsConfig


# --- lineage -----------------------------------------------------------------------------------------------------


class ApproverFact(Fact):
    """The registered person behind the signing key; `signature_valid` is what Python's verification said."""

    person: Text
    key_id: Text
    signature_valid: bool
    key_revoked: bool
    is_approver: bool


class LineageRequest(Fact):
    """Shall this signed statement count as an approval of this version? `subject_digest` is what was signed."""

    action: Literal["approve"]
    model: Text
    version: Text
    subject_digest: Text
    principal: PrincipalFact


class LineageFacts(Fact):
    """`model.approvals` holds those that count already."""

    model: ModelFact | None = None
    approver: ApproverFact | None = None


class LineageConfig(Config):
    pass


class LineageInput(Fact):
    now_unix: Count
    mandatory: list[Text]
    request: LineageRequest
    facts: LineageFacts
    config: LineageConfig


# --- bundle ------------------------------------------------------------------------------------------------------


class SignatureFact(Fact):
    """One counted signature of one registered person over one proposal's content."""

    person: Text
    digest: Text
    approved_at_unix: Count


class ProposalFact(Fact):
    """A proposed policy change; `digest` is that of its exact content."""

    change: Literal["bundle", "rollback", "configuration"]
    digest: Text
    author: Text
    state: Literal["open", "withdrawn", "done"]
    approvals: list[SignatureFact] = []


class BundleRequest(Fact):
    """`approve`: shall this signed statement over `digest` count? `activate`: may the content with `digest` take effect?

    `subject` is the proposal's id.
    """

    action: Literal["approve", "activate"]
    subject: Text
    digest: Text
    principal: PrincipalFact


class BundleFacts(Fact):
    """Judged by the rules that run, never by the proposed ones."""

    proposal: ProposalFact | None = None
    approver: ApproverFact | None = None


class BundleConfig(Config):
    """Modes and exemptions are never looked up for this domain: who could switch its rules off would need no approval."""


class BundleInput(Fact):
    now_unix: Count
    mandatory: list[Text]
    request: BundleRequest
    facts: BundleFacts
    config: BundleConfig


Input = AdmissionInput | GatewayInput | WeightsInput | LineageInput | BundleInput

INPUTS: dict[Domain, type[AdmissionInput | GatewayInput | WeightsInput | LineageInput | BundleInput]] = {
    "admission": AdmissionInput,
    "gateway": GatewayInput,
    "weights": WeightsInput,
    "lineage": LineageInput,
    "bundle": BundleInput,
}


def as_json(value: Input) -> dict[str, Any]:
    """The document that engines see: absent fields are left out, never null."""
    return value.model_dump(mode="json", exclude_none=True)


def mandatory(domain: Domain) -> list[str]:
    """What goes into `input.mandatory`."""
    return list(MANDATORY[domain])
