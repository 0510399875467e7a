"""Which responses carry an oracle label at a given coverage.

    position i is labelled  <=>  frac(i phi) < c,   phi = (sqrt(5) - 1) / 2

The Kronecker sequence of the golden ratio spreads labels evenly, so that a larger coverage or a longer list only adds
labels, and the count stays within five of c n up to a million positions. Where the order of the prompts is random, the
labelled ones are a simple random sample. Data brought along has an order of its own; there rows are put in the order of
a hash of seed and prompt id, and labels are kept first-come.
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

ONE = 1 << 64  # the circle of length one, in whole steps: products stay exact, where floats would drift with i
GOLDEN = (math.isqrt(5 << 128) - ONE) // 2  # phi in those steps


@dataclass(frozen=True)
class Kept:
    """Labels kept out of those that exist."""

    mask: np.ndarray  # (n,) bool, rows that keep their label
    wanted: int  # round(c n)
    found: int  # labels that exist


def golden_position(position: int, coverage: float) -> bool:
    """Whether a position (from 0) is labelled at this coverage; labelled at c stays labelled at every larger c."""
    return position * GOLDEN % ONE < int(coverage * ONE)


def first_come(prompt_ids: Sequence[str], seed: int, coverage: float, labelled: np.ndarray) -> Kept:
    """Keep existing labels in the order of a hash of seed and prompt id, until round(coverage * n) are kept."""
    wanted = round(coverage * len(prompt_ids))
    rank = {name: blake2b(f"{seed}-{name}".encode(), digest_size=16).digest() for name in set(prompt_ids)}
    order = sorted(range(len(prompt_ids)), key=lambda row: (rank[prompt_ids[row]], row))
    chosen = [row for row in order if labelled[row]][:wanted]
    mask = np.zeros(len(prompt_ids), dtype=bool)
    mask[chosen] = True
    return Kept(mask, wanted, int(np.count_nonzero(labelled)))


def _number(coverage: str | float) -> float:
    """The number meant by a coverage, NaN where none can be read; `10%` is read so that its right name can be told."""
    text = str(coverage).strip()
    try:
        return float(Decimal(text[:-1]) / 100) if text.endswith("%") else float(text)
    except (ArithmeticError, ValueError):
        return math.nan


def coverage_name(coverage: str | float) -> str:
    """The one spelling of a coverage in file names: a plain decimal without trailing zeros, `1.0` for all.

    Two spellings of one number would be two folders with the same labels, so a string that is not canonical is refused.
    """
    number = math.nan if isinstance(coverage, bool) else _number(coverage)
    if not 0 < number <= 1:
        raise UserError(
            f"coverage {coverage!r} is not a share of prompts in (0, 1]; write 0.1 for a tenth, 1.0 for all"
        )
    name = "1.0" if number == 1 else format(Decimal(repr(number)), "f")
    if isinstance(coverage, str) and coverage != name:
        raise UserError(f"coverage {coverage!r} is not in its canonical form; write coverage_{name}")
    return name
