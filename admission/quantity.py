"""Kubernetes' `resource.Quantity`, read exactly.

Grammar: k8s.io/apimachinery/pkg/api/resource/quantity.go (the comment on `type Quantity`). The value is a Fraction, so no
form loses anything: "1k", "1e3", "1000", "1000000m" and 1000 are the same number.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from admission.fields import kind_of
from core.errors import BadInput
from core.inputs import MAX_INTEGER

MAX_TEXT = 64
MAX_EXPONENT = 64
"""Kubernetes caps values at 2**63 - 1, so nothing beyond this can be meant; the bound keeps 1e999999999 from being built."""

_FORM = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,9})?\Z")
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse(value: Any, where: str = "") -> Fraction:
    """The number behind a quantity as it stands in JSON or YAML (text or a number). BadInput for anything else."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BadInput(f"expected a quantity, found {kind_of(value)}", where=where)
    # The API server trims white space and reads a JSON number by its text (Quantity.UnmarshalJSON).
    text = value.strip(" \t\r\n") if isinstance(value, str) else repr(value)
    match = _FORM.match(text) if len(text) <= MAX_TEXT else None
    if match is None or not (match[2] or match[3]):
        raise BadInput(f"{text[:MAX_TEXT]!r} is not a quantity; write 1, 500m, 2Ki or 1e3", where=where)
    sign, whole, decimals, suffix = match[1], match[2], match[3] or "", match[4] or ""
    number = Fraction(int(whole + decimals or "0"), 10 ** len(decimals)) * _scale(suffix, where)
    return -number if sign == "-" else number


def _scale(suffix: str, where: str) -> Fraction:
    if suffix in _BINARY:
        return Fraction(1024 ** _BINARY[suffix])
    exponent = _DECIMAL.get(suffix)
    if exponent is None:
        exponent = int(suffix[1:]) if suffix else 0
    if abs(exponent) > MAX_EXPONENT:
        raise BadInput(f"an exponent beyond {MAX_EXPONENT} is not a quantity that can be meant", where=where)
    return Fraction(10) ** exponent


def whole(value: Any, where: str = "") -> int:
    """An extended resource's amount: a whole number of at least 0, as Kubernetes' validation demands. BadInput otherwise."""
    number = parse(value, where)
    if number.denominator != 1 or number < 0:
        raise BadInput(f"{str(value)[:MAX_TEXT]} is not a whole number of devices", where=where)
    if number > MAX_INTEGER:
        raise BadInput(f"{str(value)[:MAX_TEXT]} devices are more than can be counted", where=where)
    return int(number)
