"""Reading an engine's answer: exactly the agreed document, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Entry(_Strict):
    """One element of `violations`. `message` is there where a user's rule brought one."""

    rule: str
    mode: Literal["enforce"]
    path: str
    args: dict[str, Any]
    message: str | None = None


class Warned(_Strict):
    """One element of `warnings`; `exemption` names the permission where the mode is `exempted`."""

    rule: str
    mode: Literal["warn", "dryrun", "exempted"]
    path: str
    args: dict[str, Any]
    message: str | None = None
    exemption: str | None = None


class _Document(_Strict):
    allow: bool
    evaluated: tuple[str, ...]
    grants: tuple[str, ...]
    violations: tuple[Entry, ...]
    warnings: tuple[Warned, ...]
    obligations: dict[str, Any]


class Answer(_Document):
    @classmethod
    def empty(cls) -> Answer:
        return cls(allow=False, evaluated=(), grants=(), violations=(), warnings=(), obligations={})


def read_answer(raw: Any) -> tuple[Answer | None, str]:
    """The answer, or None and what is wrong with it."""
    if not isinstance(raw, Mapping):
        return None, "the decision is undefined" if raw is None else "the decision is not an object"
    try:
        # Lists from JSON become tuples; everything else is strict.
        parsed = Answer.model_validate(
            {key: _tuples(value) if isinstance(value, list) else value for key, value in raw.items()}
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return None, f"in its decision, {'.'.join(str(part) for part in first['loc'][:3])}: {first['msg']}"
    if parsed.allow and parsed.violations:
        return None, "it allows in spite of a violation"
    return parsed, ""


def _tuples(value: list[Any]) -> tuple[Any, ...]:
    return tuple(value)
