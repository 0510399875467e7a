"""Numbers as text."""

from __future__ import annotations

import pytest

from arena_cje.numbers import decimal


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (None, ".3f", "-"),
        (float("nan"), "+.3f", "-"),
        (0.12345, ".3f", "0.123"),
        (-0.0001, ".3f", "0.000"),
        (-0.0001, "+.3f", "-0.000"),  # a limit below zero: its interval includes zero
        (0.0001, "+.3f", "+0.000"),
        (-1e-17, "+.3f", "+0.000"),  # from the order of additions
        (0.0, "+.3f", "+0.000"),
        (7740, ",d", "7,740"),
        (0, ",d", "0"),
        (1234.5, ",.4f", "1,234.5000"),
        (0.5, ".1%", "50.0%"),
        (-0.0001, ".0%", "0%"),
        (2.5e9, ".3f", "2.50e+09"),
        (12, ".0f", "12"),
    ],
)
def test_a_number_keeps_the_sign_that_decides(value, form, text):
    assert decimal(value, form) == text
