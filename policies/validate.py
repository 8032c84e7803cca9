"""The input of a decision against its domain's type (`core.inputs`), before any engine sees it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from core.decision import Domain
from core.inputs import INPUTS

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Problem:
    """`path` in the input, and what is wrong there; never the value that was found."""

    path: str
    message: str


def check_input(domain: Domain, document: bytes) -> Problem | None:
    """The first thing wrong with an input, given as JSON bytes; None when it fits.

    A field that is not known must be absent: `null` is refused, because Rego orders null below every number, so a limit or
    an expiry that is null would be compared instead of missed.
    """
    try:
        INPUTS[domain].model_validate_json(document, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        return Problem(_path(first["loc"]), str(first["msg"]))
    if b"null" in document and (path := _null(json.loads(document), ())) is not None:
        return Problem(_path(path), "null; a field that is not known is left out")
    return None


def _path(parts: tuple[Any, ...]) -> str:
    """Field names and indices; a key that is no plain name may be somebody's data, so it is not repeated."""
    shown = ""
    for part in parts:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += "." + (part if _PLAIN_KEY.match(str(part)) else "(key)")
    return shown.removeprefix(".")


def _null(value: Any, path: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if value is None:
        return path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found = _null(item, (*path, key))
        if found is not None:
            return found
    return None
