"""Patterns of secrets, which Presidio has none of. Each is bounded, so none can blow up.

Sources: the key formats that the providers publish, and RFC 7468 (PEM), RFC 7519 (JWT), RFC 3986 3.2.1 (userinfo).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SecretPattern:
    """`kind` is what stands in the tag. `group` is the part that is secret, where it is not the whole match."""

    kind: str
    name: str
    regex: str
    score: float = 0.9


_EDGE = r"(?<![A-Za-z0-9_-])"
_END = r"(?![A-Za-z0-9_-])"

PATTERNS: Sequence[SecretPattern] = (
    SecretPattern("SECRET_KEY", "aws access key id", _EDGE + r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}" + _END),
    SecretPattern(
        "SECRET_KEY", "github token", _EDGE + r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,100})" + _END
    ),
    SecretPattern("SECRET_KEY", "gitlab token", _EDGE + r"glpat-[A-Za-z0-9_-]{20,64}" + _END),
    SecretPattern("SECRET_KEY", "slack token", _EDGE + r"xox[abeoprs]-[A-Za-z0-9-]{10,250}" + _END),
    SecretPattern("SECRET_KEY", "google api key", _EDGE + r"AIza[A-Za-z0-9_-]{35}" + _END),
    SecretPattern("SECRET_KEY", "anthropic or openai key", _EDGE + r"sk-[A-Za-z0-9_-]{20,250}" + _END),
    SecretPattern("SECRET_KEY", "hugging face token", _EDGE + r"hf_[A-Za-z0-9]{30,64}" + _END),
    SecretPattern("SECRET_KEY", "portcullis key", _EDGE + r"pcl_[A-Za-z0-9]{12}_[A-Za-z0-9_-]{43}" + _END),
    SecretPattern("SECRET_KEY", "stripe key", _EDGE + r"[rs]k_live_[A-Za-z0-9]{16,250}" + _END),
    SecretPattern(
        "JWT", "json web token", _EDGE + r"eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{8,4096}" + _END
    ),
    SecretPattern(
        "PRIVATE_KEY",
        "pem private key",
        r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----[A-Za-z0-9+/=\s\\:,-]{0,20000}?-----END (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----",
    ),
    SecretPattern("URL_CREDENTIALS", "credentials in a url", r"(?<=://)[^\s/@:\"']{0,128}:[^\s/@\"']{1,256}(?=@)"),
    SecretPattern("AUTHORIZATION", "authorization header", r"(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{16,4096}"),
    SecretPattern(
        "PASSWORD",
        "a value beside a word for a secret",
        r"(?i)(?<![A-Za-z])(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?([^\s\"',;&<>]{6,256})",
        0.8,
    ),
)

PLACEHOLDERS = frozenset({"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"})
"""Examples out of the providers' own documentation; masking them would only hide what is public."""

HINTS = ("akia", "asia", "abia", "acca", "gh", "glpat", "xox", "aiza", "sk-", "hf_", "pcl_", "k_live_", "eyj", "private key", "://",
         "bearer", "pass", "pwd", "secret", "token", "key")  # fmt: skip
"""Text that holds none of these (lower-cased) holds none of the patterns."""
