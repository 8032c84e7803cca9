from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission import quantity
from core.errors import BadInput

FORMS = {
    "1": 1, "1k": 1000, "1e3": 1000, "1E3": 1000, "1E": 10**18, "1000m": 1, "2Ki": 2048, "0.5Ki": 512, ".5": Fraction(1, 2),
    "5.": 5, "+3": 3, "-3": -3, "1e-3": Fraction(1, 1000), "1Ei": 2**60, "100n": Fraction(1, 10**7), " 8 ": 8,
}  # fmt: skip
BAD_QUANTITIES = {
    "nothing": None, "boolean": True, "list": [1], "empty": "", "point": ".", "letters": "abc", "no exponent": "1e",
    "two suffixes": "1kKi", "comma": "1,000", "hex": "0x10", "spaces inside": "1 k", "wide digits": "１", "underscore": "1_000",
    "infinity": float("inf"), "not a number": float("nan"), "huge exponent": "1e999999999", "long": "9" * 100, "line": "1\n2",
}  # fmt: skip


@pytest.mark.parametrize(("text", "number"), FORMS.items())
def test_each_form_is_read_exactly(text: str, number: Fraction) -> None:
    assert quantity.parse(text) == number


@pytest.mark.parametrize("value", BAD_QUANTITIES.values(), ids=BAD_QUANTITIES.keys())
def test_what_is_not_a_quantity_is_refused(value: object) -> None:
    with pytest.raises(BadInput):
        quantity.parse(value, "here")


def test_json_numbers_are_read_by_their_text() -> None:
    assert quantity.parse(8) == 8
    assert quantity.parse(0.1) == Fraction(1, 10)


@pytest.mark.parametrize("value", ["1.5", "500m", "-1", "1e30", "1n"])
def test_devices_are_whole_and_countable(value: str) -> None:
    with pytest.raises(BadInput):
        quantity.whole(value)


@given(st.integers(0, 10**9), st.sampled_from(["", "k", "M", "Ki", "e2", "m"]))
def test_a_suffix_multiplies_and_nothing_is_lost(number: int, suffix: str) -> None:
    scale = {"": 1, "k": 1000, "M": 10**6, "Ki": 1024, "e2": 100, "m": Fraction(1, 1000)}[suffix]
    assert quantity.parse(f"{number}{suffix}") == number * Fraction(scale)


@given(st.text(max_size=20))
def test_any_text_is_a_number_or_a_typed_error(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert isinstance(quantity.parse(text), Fraction)
