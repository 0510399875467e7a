"""Numbers as text, the same in tables, sentences and on pages."""

from __future__ import annotations

import math

from arena_cje.estimation.records import ROUNDING

LARGE = 1e8  # numbers from here on have an exponent, as their digits would not fit


def decimal(value: float | None, form: str = ".3f") -> str:
    """A number in a format, "-" for an unknown one.

    A difference (a format with "+") keeps the sign of what rounds to zero: -0.000 is a limit below zero, so that its interval
    includes zero, and +0.000 one at zero or above. A value without a sign in its format is never -0.000.
    """
    if value is None or math.isnan(value):
        return "-"
    text = format(value, ".2e" if abs(value) >= LARGE else form)
    if any(digit in text for digit in "123456789"):
        return text
    sign = ("-" if value < -ROUNDING else "+") if "+" in form else ""
    return sign + text.lstrip("+-")


def interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    """An interval in brackets, both ends in a format."""
    return f"[{decimal(low, form)}, {decimal(high, form)}]"
