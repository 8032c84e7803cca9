"""Names that people type and programs compare: model references, digests, rule ids, GPU amounts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from core.errors import BadInput

SHARES_PER_GPU = 20_160
"""Shares in one GPU unit: divisible by 7, 8, 9, 10 and 64, so MIG sevenths and time-sliced 64ths are whole."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """`NAME@VERSION`."""

    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        name, at, version = text.partition("@")
        if not at:
            raise BadInput(f"{text[:160]!r} names no version; write NAME@VERSION")
        return cls(check_name(name, "model name"), check_name(version, "model version"))

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def check_name(text: str, what: str) -> str:
    """`text` itself when it is letters, digits, dots, underscores and dashes (at most 128); BadInput otherwise."""
    if not isinstance(text, str) or not _NAME.match(text):
        raise BadInput(
            f"{what} {str(text)[:160]!r}: use 1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit"
        )
    return text


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 lower-case hex digits."""
    return bool(_DIGEST.match(text))


def check_digest(text: str, what: str = "digest") -> str:
    if not isinstance(text, str) or not is_digest(text):
        raise BadInput(f"{what} {str(text)[:80]!r}: write sha256: and 64 lower-case hex digits")
    return text


def shares_of(amount: str | int | Fraction) -> int:
    """GPU units ("2", "0.5", "3/7", 4) as integer shares. BadInput when negative, unreadable or not whole in shares."""
    try:
        units = Fraction(amount.strip() if isinstance(amount, str) else amount)
    except (ValueError, ZeroDivisionError, TypeError, AttributeError) as error:
        raise BadInput(f"{str(amount)[:40]!r} is not an amount of GPUs; write 2, 0.5 or 3/7") from error
    shares = units * SHARES_PER_GPU
    if shares.denominator != 1 or shares < 0:
        raise BadInput(f"{amount} GPUs are not a whole number of shares (1/{SHARES_PER_GPU} GPU)")
    return int(shares)


def show_gpus(shares: int) -> str:
    """Shares as people read them: "8", "0.5", "3/7". Exact: a decimal only where it ends within four places."""
    units = Fraction(shares, SHARES_PER_GPU)
    if units.denominator == 1:
        return str(units.numerator)
    if 10_000 % units.denominator == 0:
        return f"{float(units):.4f}".rstrip("0")
    return f"{units.numerator}/{units.denominator}"
