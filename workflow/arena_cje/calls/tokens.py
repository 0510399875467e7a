"""Token counts of texts and of calls, as ranges: the tokenizer is unknown before the call is made.

    [low, middle, high]     lower bound, best guess and upper bound of a mean (no quantiles)

Ranges are added and multiplied bound by bound. English text has about four characters a token; the bounds allow for half and
twice as many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Range:
    """Bounds of a number and a best guess between them; all three are at least 0."""

    low: float
    middle: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __mul__(self, other: Range | float) -> Range:
        factor = other if isinstance(other, Range) else exact(other)
        return Range(self.low * factor.low, self.middle * factor.middle, self.high * factor.high)

    def clip(self, bounds: Range) -> Range:
        """The range with each of its numbers moved into [bounds.low, bounds.high]."""
        return Range(*(min(max(value, bounds.low), bounds.high) for value in (self.low, self.middle, self.high)))


def exact(value: float) -> Range:
    """The range of a known number: both bounds equal it."""
    return Range(value, value, value)


@dataclass(frozen=True)
class CallSize:
    """Size of the calls of one stage: calls for each row, and tokens for each call."""

    calls: Range
    prompt_tokens: Range
    completion_tokens: Range


# Tokens a character. English prose has 4 to 5 characters a token, numbers and code have 2 to 3. Other scripts range from four
# characters a token to three tokens (one for each byte) a character.
TOKENS_PER_ASCII_CHARACTER = Range(1 / 8, 1 / 4, 1 / 2)
TOKENS_PER_OTHER_CHARACTER = Range(1 / 4, 1.0, 3.0)

# Calls that give the log probabilities of one text: two where a token spans the end of the prompt and the beginning of the
# response.
ECHO_CALLS = Range(0.5, 1.1, 2.4)


def estimate_tokens(text: str) -> Range:
    """Number of tokens of a text under an unknown tokenizer."""
    n_ascii = len(text.encode("ascii", "ignore"))
    return TOKENS_PER_ASCII_CHARACTER * n_ascii + TOKENS_PER_OTHER_CHARACTER * (len(text) - n_ascii)


def mean_range(ranges: Iterable[Range]) -> Range:
    """Mean of ranges, bound by bound; 0 where there are none."""
    parts = list(ranges)
    return sum(parts, exact(0)) * (1 / len(parts)) if parts else exact(0)
