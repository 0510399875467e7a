"""Paired differences between policies, and p-values for many of them at once.

    d = V_1 - V_2,   t = d / se(d),   influence, jackknife, bias and bootstrap draws subtracted row by row

Policies share prompts, labels and calibrator, and what they share cancels. With bootstrap draws the p-value is
2 (1 + #{draws on the rarer side of zero}) / (B + 1). Holm's correction bounds the chance of any false difference among
all that are tested, that of Benjamini and Hochberg the share of false ones among those found. A refused policy has no
difference, and counts in neither.

Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics; Benjamini &
Hochberg (1995), "Controlling the false discovery rate", JRSS B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from arena_cje.estimation.records import Estimate


@dataclass(frozen=True)
class Contrast:
    """Value of `first` minus value of `second`; NaN throughout where either is refused or has fewer than two prompts."""

    first: str
    second: str
    difference: float = math.nan
    se: float = math.nan
    ci_lower: float = math.nan
    ci_upper: float = math.nan
    df: float = math.nan
    p_value: float = math.nan
    p_holm: float = math.nan
    p_bh: float = math.nan


def contrasts(
    estimates: Mapping[str, Estimate], *, base: str, refused: Collection[str] = (), alpha: float = 0.05
) -> list[Contrast]:
    """Every pair: each target minus the base policy first, then the targets among each other, in the order given."""
    targets = [policy for policy in estimates if policy != base]
    pairs = [(policy, base) for policy in targets] + list(combinations(targets, 2))
    found = [
        Contrast(one, other)
        if {one, other} & set(refused)
        else contrast(one, other, estimates[one] - estimates[other], alpha)
        for one, other in pairs
    ]
    return _corrected(found)


def contrast(first: str, second: str, difference: Estimate, alpha: float = 0.05) -> Contrast:
    """One difference, its interval and its p-value."""
    if not np.isfinite([difference.value, difference.se]).all():
        return Contrast(first, second)
    low, high = difference.interval(alpha)
    return Contrast(first, second, difference.value, difference.se, low, high, difference.df, p_value(difference))


def p_value(difference: Estimate) -> float:
    """Two-sided p-value of no difference; a bias taken on purpose counts as if it were noise."""
    draws = difference.replicates
    if len(draws):
        rarer = min(int(np.sum(draws <= 0)), int(np.sum(draws >= 0)))
        return min(1.0, 2 * (1 + rarer) / (len(draws) + 1))
    if difference.se == 0:
        return 1.0 if difference.value == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference.value) / difference.se, difference.df))


def _corrected(found: Sequence[Contrast]) -> list[Contrast]:
    tested = [k for k, one in enumerate(found) if not math.isnan(one.p_value)]
    if not tested:
        return list(found)
    from statsmodels.stats.multitest import multipletests  # seconds to import: only where differences are asked for

    p = [found[k].p_value for k in tested]
    holm, bh = (multipletests(p, method=method)[1] for method in ("holm", "fdr_bh"))
    corrected = {k: (float(holm[i]), float(bh[i])) for i, k in enumerate(tested)}
    return [
        replace(one, p_holm=corrected[k][0], p_bh=corrected[k][1]) if k in corrected else one
        for k, one in enumerate(found)
    ]
