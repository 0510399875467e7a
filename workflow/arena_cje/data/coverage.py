"""Which responses have an oracle label at a coverage.

    draw d of prompt i is labelled  <=>  frac(i phi) < c m - d,   phi = (sqrt(5) - 1) / 2

m is the number of a policy's draws of each prompt, and d counts from 0. A prompt's first draw is labelled before any second
one, and in the same order of the prompts for every policy: the prompts with fewer labels of one policy are among those
with more of another, so that labels of different policies lie on the same prompts. The Kronecker sequence of the golden
ratio spreads labels evenly: a larger coverage or a longer list only adds labels, and their number differs from c n m by at
most five up to a million prompts, for each draw. If the order of the prompts is random, the labelled ones are a simple
random sample. The order of a user's own data is arbitrary; there the prompts are ordered by a hash of seed and prompt id,
and the first labels in that order are used.
Niederreiter (1992), "Random Number Generation and Quasi-Monte Carlo Methods", chapter 3.
"""

from __future__ import annotations

import math
from collections import Counter
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


def has_label(prompt: int, coverage: float, *, draw: int = 0, draws: int = 1) -> bool:
    """Whether a draw of the prompt at a position (from 0) is labelled at a coverage in [0, 1], and so at every larger one."""
    return entry(prompt) < int((coverage * draws - draw) * ONE)


def first_labels(
    prompt_ids: Sequence[str], seed: int, coverage: float, labelled: np.ndarray, *, prompts_first: bool = False
) -> LabelMask:
    """The first round(coverage * n) labelled rows in the order of a hash of seed and prompt id, or all if fewer exist.

    prompt_ids: of the n rows; labelled: (n,) bool. prompts_first: a prompt's first label comes before any second one.
    """
    requested = round(coverage * len(prompt_ids))
    rank = {name: blake2b(f"{seed}-{name}".encode(), digest_size=16).digest() for name in set(prompt_ids)}
    place = _places(prompt_ids, labelled) if prompts_first else [0] * len(prompt_ids)
    order = sorted(range(len(prompt_ids)), key=lambda row: (place[row], rank[prompt_ids[row]], row))
    mask = np.zeros(len(prompt_ids), dtype=bool)
    mask[[row for row in order if labelled[row]][:requested]] = True
    return LabelMask(mask, requested, int(np.count_nonzero(labelled)))


def _places(prompt_ids: Sequence[str], labelled: np.ndarray) -> list[int]:
    """The number of labelled rows of its prompt before each row."""
    n_labelled: Counter[str] = Counter()
    places = []
    for name, counts in zip(prompt_ids, labelled, strict=True):
        places.append(n_labelled[name])
        n_labelled[name] += int(counts)
    return places


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
        raise UserError(f"coverage {coverage!r} is not in its shortest form; write coverage_{name}")
    return name
