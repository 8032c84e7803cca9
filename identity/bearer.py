"""Reading `Authorization: Bearer …` (RFC 6750, 2.1; RFC 9110, 11.4): one credential, one meaning."""

from __future__ import annotations

import re

from core.errors import Unauthenticated

NO_CREDENTIALS = "no valid credentials; send Authorization: Bearer with an API key that is in force"
"""One text for every reason, so that an answer does not tell which keys exist."""

MAX_LENGTH = 4096
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] ([A-Za-z0-9._~+/-]+=*)\Z")


def bearer(header_value: str | bytes | None) -> str:
    """The token in the header's value. Unauthenticated when it is absent, of another scheme, or anything but one token."""
    text = header_value.decode("latin-1") if isinstance(header_value, bytes) else header_value
    match = _BEARER.match(text) if text is not None and len(text) <= MAX_LENGTH else None
    if match is None:
        raise Unauthenticated(NO_CREDENTIALS)
    return match[1]
