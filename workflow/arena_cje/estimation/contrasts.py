"""Paired differences between policies, and corrections for many of them at once.

    d = V_1 - V_2,   t = d / se(d),   influence, jackknife, bias and bootstrap draws subtracted row by row
    corrected interval = interval at level 1 - alpha / K,   corrected p-value = min(1, K p)

Policies share prompts, labels and calibrator, and what they share cancels. With bootstrap draws the p-value is
2 (1 + #{draws on the rarer side of zero}) / (B + 1). There are two families of K differences: those to the reference, the base
policy unless another is named, which decide (`arena_cje.estimation.decision`), and those of the other pairs, which rank. The
intervals of a family hold at once (Dunn 1961); whether two policies differ is read from them alone. Holm's correction bounds the
probability of any false rejection over all pairs, that of Benjamini and Hochberg the expected share of false rejections. A
refused policy has no difference, and is not counted among the tests.

Dunn (1961), "Multiple comparisons among means", JASA; Holm (1979), "A simple sequentially rejective multiple test procedure",
Scandinavian Journal of Statistics; Benjamini & Hochberg (1995), "Controlling the false discovery rate", JRSS B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, stdtr

from arena_cje.estimation.decision import level_of_each

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
    corrected_lower: float = math.nan
    corrected_upper: float = math.nan
    p_corrected: float = math.nan
    p_holm: float = math.nan
    p_bh: float = math.nan


def corrected_contrasts(
    estimates: Mapping[str, Estimate],
    *,
    base: str,
    reference: str | None = None,
    refused: Collection[str] = (),
    alpha: float = 0.05,
) -> list[Contrast]:
    """The contrast of every pair: first each target minus the base policy, then the pairs of targets in given order.

    estimates: by policy, the base policy's among them; reference: the policy whose differences are a family of their own,
    None for the base; refused: policies whose contrasts are NaN.
    """
    targets = [policy for policy in estimates if policy != base]
    pairs = [(policy, base) for policy in targets] + list(combinations(targets, 2))
    reference = base if reference is None else reference
    decisive = [pair for pair in pairs if reference in pair]
    families = (decisive, [pair for pair in pairs if reference not in pair])
    corrected = {pair: one for family in families for pair, one in _family(family, estimates, refused, alpha).items()}
    return [corrected[pair] for pair in pairs]


def differences_to(
    reference: str, estimates: Mapping[str, Estimate], *, refused: Collection[str] = (), alpha: float = 0.05
) -> list[Contrast]:
    """The contrast of every other policy minus the reference, corrected for their number."""
    pairs = [(policy, reference) for policy in estimates if policy != reference]
    return list(_family(pairs, estimates, refused, alpha).values())


def _family(
    pairs: Sequence[tuple[str, str]], estimates: Mapping[str, Estimate], refused: Collection[str], alpha: float
) -> dict[tuple[str, str], Contrast]:
    """The contrasts of pairs whose corrected intervals hold together."""
    published = {pair: estimates[pair[0]] - estimates[pair[1]] for pair in pairs if not {*pair} & set(refused)}
    raw = {pair: Contrast(*pair) for pair in pairs}
    raw |= {pair: contrast(*pair, difference, alpha) for pair, difference in published.items()}
    tested = [pair for pair, one in raw.items() if not math.isnan(one.p_value)]
    return raw | {pair: with_correction(raw[pair], published[pair], alpha, len(tested)) for pair in tested}


def with_correction(one: Contrast, difference: Estimate, alpha: float, count: int) -> Contrast:
    """A contrast with interval and p-value corrected for a family of `count`; difference: what it is the contrast of."""
    low, high = difference.interval(level_of_each(alpha, count))
    return replace(one, corrected_lower=low, corrected_upper=high, p_corrected=min(1.0, count * one.p_value))


def contrast(first: str, second: str, difference: Estimate, alpha: float = 0.05) -> Contrast:
    """The record of one difference, with its interval at level 1 - alpha and its p-value; NaN where it has no variance."""
    if not np.isfinite([difference.value, difference.se]).all():
        return Contrast(first, second)
    low, high = difference.interval(alpha)
    return Contrast(first, second, difference.value, difference.se, low, high, difference.df, p_value(difference))


def p_value(difference: Estimate) -> float:
    """Two-sided p-value of no difference; the bias of capped weights is part of the standard error.

    With bootstrap draws it is at least that of the floor of the standard error.
    """
    draws, floor = difference.replicates, difference.floor.value
    if len(draws):
        rarer = min(int(np.sum(draws <= 0)), int(np.sum(draws >= 0)))
        by_floor = 2 * ndtr(-abs(difference.value) / floor) if floor else 0.0
        return float(max(by_floor, min(1.0, 2 * (1 + rarer) / (len(draws) + 1))))
    if difference.se == 0:
        return 1.0 if difference.value == 0 else 0.0
    return float(2 * stdtr(difference.df, -abs(difference.value) / difference.se))


def with_p_values(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The contrasts with p-values corrected by Holm, and by Benjamini and Hochberg, over all of those that have one."""
    tests = [k for k, one in enumerate(contrasts) if not math.isnan(one.p_value)]
    if not tests:
        return list(contrasts)
    from statsmodels.stats.multitest import multipletests  # takes seconds to import

    p = [contrasts[k].p_value for k in tests]
    holm, bh = (multipletests(p, method=method)[1] for method in ("holm", "fdr_bh"))
    corrections = {k: {"p_holm": float(holm[i]), "p_bh": float(bh[i])} for i, k in enumerate(tests)}
    return [replace(one, **corrections.get(k, {})) for k, one in enumerate(contrasts)]
