"""Which responses have an oracle label at a coverage.

    position i is labelled  <=>  frac(i phi) < c,   phi = (sqrt(5) - 1) / 2

The Kronecker sequence of the golden ratio spreads labels evenly: a larger coverage or a longer list only adds labels, and
their number differs from c n by at most five up to a million positions. If the order of the prompts is random, the
labelled ones are a simple random sample. The order of a user's own data is arbitrary; there the rows are ordered by a
hash of seed and prompt id, and the first labels in that order are used.
Niederreiter (1992), "Random Number Generation and Quasi-Monte Carlo Methods", chapter 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

ONE = 1 << 64  # fractions are whole numbers of 1/ONE: products with i are exact, where floats would lose digits
GOLDEN = (math.isqrt(5 << 128) - ONE) // 2  # phi, in units of 1/ONE


@dataclass(frozen=True)
class LabelMask:
    """The rows whose labels are used at a coverage c."""

    mask: np.ndarray  # (n,) bool
    requested: int  # round(c n)
    available: int  # number of rows with a label


def entry(position: int) -> int:
    """frac(i phi) of a position (from 0), in units of 1/ONE: it is labelled at every coverage above."""
    return position * GOLDEN % ONE


def golden_position(position: int, coverage: float) -> bool:
    """Whether a position (from 0) is labelled at a coverage in [0, 1]; if so, it is at every larger coverage too."""
    return entry(position) < int(coverage * ONE)


def first_labels(prompt_ids: Sequence[str], seed: int, coverage: float, labelled: np.ndarray) -> LabelMask:
    """The first round(coverage * n) labelled rows in the order of a hash of seed and prompt id, or all if fewer exist.

    prompt_ids: of the n rows; labelled: (n,) bool.
    """
    requested = round(coverage * len(prompt_ids))
    rank = {name: blake2b(f"{seed}-{name}".encode(), digest_size=16).digest() for name in set(prompt_ids)}
    order = sorted(range(len(prompt_ids)), key=lambda row: (rank[prompt_ids[row]], row))
    mask = np.zeros(len(prompt_ids), dtype=bool)
    mask[[row for row in order if labelled[row]][:requested]] = True
    return LabelMask(mask, requested, int(np.count_nonzero(labelled)))


def _parse_share(coverage: str | float) -> float:
    """The number that a coverage stands for, NaN if none; `10%` is parsed so that the error can name its spelling."""
    text = str(coverage).strip()
    try:
        return float(Decimal(text[:-1]) / 100) if text.endswith("%") else float(text)
    except (ArithmeticError, ValueError):
        return math.nan


def coverage_name(coverage: str | float) -> str:
    """The spelling of a coverage in file names: a plain decimal without trailing zeros, `1.0` for all prompts.

    Raises a `UserError` for a number outside (0, 1], and for a string in another spelling, since two spellings of one
    number would be two folders with the same labels.
    """
    number = math.nan if isinstance(coverage, bool) else _parse_share(coverage)
    if not 0 < number <= 1:
        raise UserError(
            f"coverage {coverage!r} is not a share of prompts in (0, 1]; write 0.1 for a tenth, 1.0 for all"
        )
    name = "1.0" if number == 1 else format(Decimal(repr(number)), "f")
    if isinstance(coverage, str) and coverage != name:
        raise UserError(f"coverage {coverage!r} is not in its canonical form; write coverage_{name}")
    return name
