"""`portcullis.yaml`: read once, frozen, typed. An unknown key, a duplicate key or a wrong type refuses to start.

Every value can be overridden by `PORTCULLIS_SECTION__KEY` (its text is read as YAML). Values of type `Secret` may be given
as `file:///path` or `env:NAME`; `reveal` reads them at the moment of use, so that they never sit in a settings dump.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from core import yamlread
from core.errors import ConfigError
from core.names import ModelRef

ENV_PREFIX = "PORTCULLIS_"
RESERVED_ENV = frozenset({"PORTCULLIS_OPA", "PORTCULLIS_CONFIG", "PORTCULLIS_STATE", "PORTCULLIS_TOKEN", "PORTCULLIS_COMPLETE"})

Secret = str


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _loopback_or_tls(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("write a http:// or https:// address")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_loopback_or_tls)]


class Storage(_Section):
    url: Secret = "sqlite+aiosqlite:///.portcullis/portcullis.db"


class Policy(_Section):
    engine: Literal["auto", "embedded", "wasm", "opa"] = "auto"
    """`auto`: `wasm` when the bundle brings a module, else `embedded`."""
    url: Url | None = None
    """The OPA server, for `engine: opa`."""
    ca: str | None = None
    """Certificates in PEM that the OPA server's is checked against, for an https:// address; the system's when it is not set."""
    token_file: str | None = None
    """A file with the bearer token that the OPA server asks for (`--authentication=token`), for an https:// address."""
    bundle: str | None = None
    """A bundle file (`portcullis policy bundle build`); the shipped rules and `extra` when it is not set."""
    verify_key: str | None = None
    """A public key in PEM, Ed25519 or P-256: a bundle that it did not sign is not loaded."""
    extra: list[str] = []
    """Folders with the operator's own rules, laid out as rules/DOMAIN/RULE/."""
    deadline_ms: Annotated[int, Field(ge=10, le=60_000)] = 1_000

    @model_validator(mode="after")
    def _url_with_opa(self) -> Policy:
        if (self.engine == "opa") != (self.url is not None):
            raise ValueError("policy.url goes with engine: opa, and engine: opa needs it")
        if (self.ca or self.token_file) and not str(self.url).startswith("https://"):
            raise ValueError("policy.ca and policy.token_file go with an https:// policy.url")
        if self.engine == "wasm" and self.bundle is None:
            raise ValueError("engine: wasm needs policy.bundle, a bundle with a Wasm module")
        if self.bundle is not None and self.extra:
            raise ValueError("policy.extra is what a bundle is built with; with policy.bundle it does nothing")
        if self.verify_key is not None and self.bundle is None:
            raise ValueError("policy.verify_key is for policy.bundle, which is not set")
        return self


class Evidence(_Section):
    dir: str = ".portcullis/evidence"
    origin: Annotated[str, Field(pattern=r"^[a-z0-9.-]+(/[a-zA-Z0-9._-]+)*$", max_length=200)] = "portcullis.local/log"
    durability: Literal["batched", "strict"] = "batched"
    """`strict`: fsync before the answer; `batched`: write() before the answer, fsync in groups."""


class Keys(_Section):
    provider: Literal["local"] = "local"
    path: str = ".portcullis/keys"


class Tls(_Section):
    cert: str
    key: str


class UpstreamModel(_Section):
    """`served` is the name callers send; `model` the registered version behind it."""

    served: Annotated[str, Field(min_length=1, max_length=128)]
    model: str

    @property
    def ref(self) -> ModelRef:
        return ModelRef.parse(self.model)


class Upstream(_Section):
    name: str
    url: Url
    protocol: Literal["openai"] = "openai"
    models: list[UpstreamModel]
    weight: Annotated[int, Field(ge=1, le=1000)] = 100
    api_key: Secret | None = None
    timeout_s: Annotated[int, Field(ge=1, le=3600)] = 600


class GatewayIdentity(_Section):
    api_keys: Literal[True] = True


class Gateway(_Section):
    upstreams: list[Upstream] = []
    identity: GatewayIdentity = GatewayIdentity()
    log: str = ".portcullis/logs/inference.jsonl"
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 4 * 1024 * 1024


class Redaction(_Section):
    policy: str = "default"
    fail: Literal["closed"] = "closed"


class Admission(_Section):
    tls: Literal["self-signed"] = "self-signed"
    """Used when the top-level `tls` is not set."""
    failure_policy: Literal["Fail"] = "Fail"


class Counters(_Section):
    url: Literal["memory://"] = "memory://"


class Telemetry(_Section):
    prometheus: bool = True


class Settings(_Section):
    profile: Literal["development", "production"] = "development"
    tenant: str = "default"
    """The organisation that commands and the admin token of this installation act in."""
    operators: dict[str, str] = {}
    """Logins of this machine to the registered people behind them (`root: ann`): what they propose or register, they cannot approve."""
    storage: Storage = Storage()
    counters: Counters = Counters()
    policy: Policy = Policy()
    config: list[str] = []
    evidence: Evidence = Evidence()
    keys: Keys = Keys()
    tls: Tls | None = None
    gateway: Gateway = Gateway()
    redaction: Redaction = Redaction()
    admission: Admission = Admission()
    telemetry: Telemetry = Telemetry()

    @model_validator(mode="after")
    def _production_is_strict(self) -> Settings:
        if self.profile == "production" and self.keys.provider == "local":
            raise ValueError(
                "keys.provider: local keeps keys in plain files (InsecureLocalKeys); profile: production refuses it"
            )
        return self


def parse(text: str, *, where: str = "portcullis.yaml", environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the file's text and the overriding environment. ConfigError names the key that is wrong."""
    try:
        document = yamlread.load(text, where=where)
    except Exception as error:
        raise ConfigError(getattr(error, "message", "cannot be read"), where=getattr(error, "where", where)) from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError("expected a mapping of sections", where=where)
    for name, value in sorted((environ or {}).items()):
        if name.startswith(ENV_PREFIX) and name not in RESERVED_ENV:
            _override(document, name, value)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "settings"
        known = " (unknown key)" if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{first['msg']}{known}", where=f"{where}: {key}") from error


def _override(document: dict[str, Any], name: str, value: str) -> None:
    path = name[len(ENV_PREFIX) :].lower().split("__")
    here: Any = document
    for part in path[:-1]:
        here = here.setdefault(part, {})
        if not isinstance(here, dict):
            raise ConfigError(f"{part} is not a section", where=f"environment {name}")
    here[path[-1]] = yamlread.load(value, where=f"environment {name}")


def rooted(settings: Settings, state: Path) -> Settings:
    """The same settings with every default path below `.portcullis` moved to the state folder `state`."""

    def move(value: Any) -> Any:
        if isinstance(value, str):
            return (
                value.replace("sqlite+aiosqlite:///.portcullis/", f"sqlite+aiosqlite:///{state}/")
                if value.startswith("sqlite")
                else (str(state / value.removeprefix(".portcullis/")) if value.startswith(".portcullis/") else value)
            )
        return value

    return settings.model_copy(
        update={
            "storage": settings.storage.model_copy(update={"url": move(settings.storage.url)}),
            "evidence": settings.evidence.model_copy(update={"dir": move(settings.evidence.dir)}),
            "keys": settings.keys.model_copy(update={"path": move(settings.keys.path)}),
            "gateway": settings.gateway.model_copy(update={"log": move(settings.gateway.log)}),
        }
    )


def reveal(value: Secret, *, environ: Mapping[str, str], read: Callable[[str], str], where: str) -> str:
    """The secret behind `file:///path` or `env:NAME`; any other text is the value itself."""
    if value.startswith("file://"):
        try:
            return read(value.removeprefix("file://")).strip()
        except OSError as error:
            raise ConfigError(f"the secret's file cannot be read: {error.strerror}", where=where) from error
    if value.startswith("env:"):
        name = value.removeprefix("env:")
        if name not in environ:
            raise ConfigError(f"the environment has no {name}", where=where)
        return environ[name]
    return value
