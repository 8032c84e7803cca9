"""`sealed://PATH@sha256:HEX`: where a sealed folder lies, and which one it must be.

The path is written as a URI writes it (RFC 3986, 2.1), so that a reference has no blanks or quotes and survives a manifest, a
shell and an annotation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from core.errors import BadInput
from core.names import check_digest

SCHEME = "sealed://"
_PLAIN = re.compile(r"(?:[A-Za-z0-9/._~-]|%[0-9A-Fa-f]{2})+\Z")


@dataclass(frozen=True, slots=True)
class SealedReference:
    path: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> SealedReference:
        """BadInput without the scheme, a path or a whole digest, and for a path that is not written as a URI's."""
        path, at, digest = text.removeprefix(SCHEME).rpartition("@")
        if not text.startswith(SCHEME) or not at or not _PLAIN.match(path):
            raise BadInput("is no sealed:// reference; write sealed://PATH@sha256:HEX", where=repr(text[:120]))
        try:
            plain = unquote(path, errors="strict")
        except UnicodeDecodeError as error:
            raise BadInput("the path is not UTF-8", where=repr(text[:120])) from error
        if not plain.isprintable():
            raise BadInput("the path holds a control character", where=repr(text[:120]))
        return cls(plain, check_digest(digest, "manifest digest"))

    def __str__(self) -> str:
        return f"{SCHEME}{quote(self.path, safe='/')}@{self.digest}"
