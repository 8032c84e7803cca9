"""Log policies: what the inference log keeps. Shipped ones by name, an operator's own by the path of a YAML file.

description: one sentence
content: withhold | redact        message content: left out, or kept redacted
entities: [EMAIL_ADDRESS, …]      what is looked for; everything when left out
threshold: 0.4                    the confidence from which a finding counts
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from core import yamlread
from core.errors import ConfigError, PortcullisError

SHIPPED = Path(__file__).parent / "policies"
THRESHOLD = 0.4
ENTITIES = frozenset(
    {
        "AUTHORIZATION", "CREDIT_CARD", "CRYPTO", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "JWT", "MAC_ADDRESS", "PASSWORD",
        "PHONE_NUMBER", "PRIVATE_KEY", "SECRET_KEY", "URL_CREDENTIALS", "US_SSN",
    }
)  # fmt: skip
"""What the recognizers find, written here too (a test compares), for the gateway refuses a policy without importing them."""


def _known(entity: str) -> str:
    if entity not in ENTITIES:
        raise ValueError(f"nothing finds {entity[:40]}; known are {', '.join(sorted(ENTITIES))}")
    return entity


class LogPolicy(BaseModel):
    """One policy, checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    description: Annotated[str, Field(min_length=1, max_length=1000)]
    content: Literal["withhold", "redact"]
    entities: Annotated[list[Annotated[str, AfterValidator(_known)]], Field(min_length=1)] | None = None
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = THRESHOLD


def names() -> list[str]:
    """The shipped policies."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def read_policy(name: str) -> LogPolicy:
    """The shipped policy of that name, or the one in the file at that path (which ends in .yaml). ConfigError says what is wrong."""
    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else SHIPPED / f"{name}.yaml"
    if not own and name not in names():
        raise ConfigError(
            f"there is no log policy {name[:80]!r}; shipped are {', '.join(names())}, or name a .yaml file",
            where="redaction.policy",
        )
    try:
        document = yamlread.load(path.read_bytes(), where=str(path))
        return LogPolicy.model_validate(document)
    except OSError as error:
        raise ConfigError(f"the log policy cannot be read: {error.strerror}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ConfigError(first["msg"], where=f"{path}: {'.'.join(str(part) for part in first['loc'])}") from error
    except PortcullisError as error:
        raise ConfigError(error.message, where=error.where or str(path)) from error
