"""Canonical JSON is RFC 8785's, whichever way it was written."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from core.canonical import canonical
from core.errors import BadInput

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=5),
    max_leaves=25,
)


@given(_JSON)
@example({"\ue000": 1, "\U0001f600": 2})  # UTF-16 order differs from the order of code points
@example({"b": [1, {"a": '\u007f\u0000\u001f\\"/\u2028é'}], "a": -0.0, "A": 1e21})
@example({"€": 1, "$": 2, "\r": 3, "1": 4})
def test_it_is_rfc_8785_byte_for_byte(value: Any) -> None:
    try:
        expected = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        with pytest.raises(BadInput):
            canonical(value)
    else:
        assert canonical(value) == expected


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), float("nan"), float("inf"), {1: 2}, {None: 1}, "\ud800", {"\ud800": 1}, {1, 2}, b"x", [object()]],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    for wrapped in (value, [value], {"a": {"b": value}}):
        with pytest.raises(BadInput):
            canonical(wrapped)


def test_it_is_refused_when_it_never_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(BadInput):
        canonical(loop)
