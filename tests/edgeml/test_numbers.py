import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.numbers import MAX_LENGTH, integer, measured, number

NONE = [
    "", "-", "+", ".", "e5", "1e", "1_000", "１２", "١٢", "²", "½", " 1", "1 ", "1\n", "\t1", "\ufeff1", "1\x00",
    "0x10", "1,5", "1.2.3", "--1", "nan", "NaN", "inf", "-Infinity", "1e999", "1" * 401, "True", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("text", NONE, ids=ascii)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="is no number"):
        number(text)
    with pytest.raises(ValueError, match="is no integer"):
        integer(text)


@pytest.mark.parametrize("text", ["0", "-0", "+7", "007", "1.", ".5", "-1.5e-3", "2E+2", "1e308"])
def test_what_is_a_number(text: str) -> None:
    assert number(text) == float(text)


@pytest.mark.parametrize(
    ("text", "value"), [("30", 30), ("30.0", 30), ("-30.", -30), ("+007", 7), ("9" * 300, 10**300 - 1)]
)
def test_what_is_an_integer(text: str, value: int) -> None:
    assert integer(text) == value


@pytest.mark.parametrize("text", ["30.5", "3e1", ".0"])
def test_a_number_that_is_not_written_as_an_integer(text: str) -> None:
    with pytest.raises(ValueError, match="is no integer"):
        integer(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_survives_its_text(value: float) -> None:
    assert number(repr(value)) == value


@given(st.text())
def test_no_text_does_more_than_raise_a_value_error(text: str) -> None:
    for read in (number, integer):
        try:
            assert math.isfinite(read(text))
        except ValueError:
            continue


@pytest.mark.parametrize(
    "value", ["1_000", "１２", math.nan, math.inf, 10**400, None, [], {}, b"1"], ids=lambda value: ascii(value)[:20]
)
def test_what_is_no_measurement(value: object) -> None:
    with pytest.raises(ValueError, match="is no"):
        measured(value)


@pytest.mark.parametrize(("value", "found"), [("1.5", 1.5), (2, 2.0), (0.25, 0.25), (True, 1.0)])
def test_what_is_a_measurement(value: object, found: float) -> None:
    assert measured(value) == found


@pytest.mark.parametrize("length", [1, MAX_LENGTH - 1, MAX_LENGTH])
def test_numbers_up_to_a_length_are_read(length: int) -> None:
    assert number("1".zfill(length)) == integer("1".zfill(length)) == 1
    with pytest.raises(ValueError, match="is no number"):
        number("1".zfill(MAX_LENGTH + 1))
    with pytest.raises(ValueError, match="is no integer"):
        integer("1".zfill(MAX_LENGTH + 1))
