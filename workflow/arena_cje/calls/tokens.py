"""How many tokens texts and calls have, where only bounds and a guess are known.

    [low, middle, high]     bounds for means, not quantiles; sums and products of ranges are ranges

A token holds about four characters of English text, give or take a factor of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Range:
    """A number of which only bounds and a guess are known; none is below zero."""

    low: float
    middle: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __mul__(self, other: Range | float) -> Range:
        by = other if isinstance(other, Range) else exact(other)
        return Range(self.low * by.low, self.middle * by.middle, self.high * by.high)

    def within(self, other: Range) -> Range:
        """The same, cut to the bounds of another."""
        return Range(*(min(max(value, other.low), other.high) for value in (self.low, self.middle, self.high)))


def exact(value: float) -> Range:
    """A number that is known."""
    return Range(value, value, value)


@dataclass(frozen=True)
class CallSize:
    """Calls a row, and tokens a call."""

    calls: Range
    prompt_tokens: Range
    completion_tokens: Range


# Tokens of one character. English prose has 4 to 5 characters a token, numbers and code 2 to 3; other scripts between four
# characters a token and three tokens (its bytes) a character.
ASCII = Range(1 / 8, 1 / 4, 1 / 2)
WIDE = Range(1 / 4, 1.0, 3.0)

# Calls to score one text: where a token holds the end of the prompt and the beginning of the response, two.
ECHO_CALLS = Range(0.5, 1.1, 2.4)


def estimate_tokens(text: str) -> Range:
    """Tokens of a text."""
    n_ascii = len(text.encode("ascii", "ignore"))
    return ASCII * n_ascii + WIDE * (len(text) - n_ascii)


def mean_range(sizes: Iterable[Range]) -> Range:
    """Mean of ranges; 0 of none."""
    parts = list(sizes)
    return sum(parts, exact(0)) * (1 / len(parts)) if parts else exact(0)
