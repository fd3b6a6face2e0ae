"""Numbers as they are printed: enough digits to tell one SSIM from the next."""

import math

import pytest

from fastpose import _numbers


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.3147, "0.315"), (3.487, "3.487"), (94.3, "94.30"), (-0.25, "-0.250"), (28, "28.00"), (0, "0.000")],
)
def test_text(value, expected):
    assert _numbers.text(value) == expected


def test_a_sign_on_request():
    assert _numbers.text(0.01, sign=True) == "+0.010"
    assert _numbers.text(-12.5, sign=True) == "-12.50"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "3", True])
def test_what_is_no_number(value):
    assert _numbers.text(value, otherwise="?") == ("1.000" if value is True else "?")
