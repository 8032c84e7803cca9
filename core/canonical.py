"""Canonical JSON (RFC 8785) and digests over it: what is signed, logged or compared goes through here."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from core.errors import BadInput


def canonical(value: Any) -> bytes:
    """`value` (dict, list, str, int, float, bool, None) as RFC 8785 bytes.

    Raises BadInput for what JSON cannot carry exactly: integers beyond 2**53 - 1, NaN, keys that are not strings.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise BadInput(f"cannot be written as canonical JSON: {error}") from error


def sha256(data: bytes) -> str:
    """The digest of `data` in the form this project writes digests: `sha256:` and 64 lower-case hex digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """The digest of a JSON value's canonical form."""
    return sha256(canonical(value))
