"""Alpha spending: critical values for an estimate that is looked at several times while its information grows.

    z_1, z_2, ... with P(|Z_1| < z_1, ..., |Z_k-1| < z_k-1, |Z_k| >= z_k) = A(t_k) - A(t_k-1),   corr(Z_j, Z_k) = sqrt(I_j / I_k)
    obrien_fleming   A(t) = 2 - 2 Phi(z_(1 - alpha/2) / sqrt(t))
    pocock           A(t) = alpha log(1 + (e - 1) t)

Z_k is the estimate of look k in standard errors, I_k = 1 / se_k^2 its information, and t_k the fraction of the last look's
information, 1 at the last. The probability of any |Z_k| >= z_k is alpha where the true value is zero. A boundary depends
on the fractions up to its look alone: neither their number nor their values need be known before. The fractions must not
depend on the estimates; those here depend on their standard errors. The interval of a look at the nominal level
2 - 2 Phi(z_k) in place of alpha is a repeated interval: all looks' intervals cover together at 1 - alpha.

Increments of Z_k sqrt(I_k) are taken as independent, which holds for estimators that are efficient (Scharfstein, Tsiatis &
Robins). The probabilities are integrated numerically from look to look (Armitage, McPherson & Rowe).

Lan & DeMets (1983), "Discrete sequential boundaries for clinical trials", Biometrika; Armitage, McPherson & Rowe (1969),
"Repeated significance tests on accumulating data", JRSS A; Jennison & Turnbull (1989), "Interim analyses: the repeated
confidence interval approach", JRSS B; Scharfstein, Tsiatis & Robins (1997), "Semiparametric efficiency and its implication
on the design and analysis of group-sequential studies", JASA.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, roots_legendre

from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

Spending = Literal["obrien_fleming", "pocock"]

NODES, WEIGHTS = roots_legendre(400)  # of the integral over a look's values
WIDEST = 10.0  # standard errors beyond which an estimate has no probability worth integrating
LEAST_PROBABILITY = 1e-300  # less to spend is nothing
# Information grows by at least this share from look to look: estimated standard errors may fall by less, or rise.
LEAST_GROWTH = 0.01


def spent(fraction: float, alpha: float, spending: Spending) -> float:
    """A(t): the error probability that may be spent up to a fraction of the information in [0, 1]."""
    if not 0 <= fraction <= 1:
        raise UserError(f"a fraction of information must lie in [0, 1], got {fraction}")
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1) * fraction)
    return float(2 * ndtr(ndtri(alpha / 2) / math.sqrt(fraction))) if fraction else 0.0


def boundaries(
    fractions: Sequence[float], information: Sequence[float], alpha: float, spending: Spending
) -> np.ndarray:
    """Critical values z (k,) of the looks so far; infinite where a look has nothing to spend.

    fractions: t of each look (k,), which never fall; information: 1 / se^2 of each look (k,), in any unit.
    """
    if not all(np.diff([0.0, *fractions]) >= 0):
        raise UserError(f"fractions of information must not fall from look to look, got {list(fractions)}")
    z: list[float] = []
    before, node, mass = 0.0, np.zeros(1), np.ones(1)  # score Z sqrt(I) of the last look: nodes and their probabilities
    already = 0.0
    for fraction, look_information in zip(fractions, information, strict=True):
        now = max(look_information, before * (1 + LEAST_GROWTH))
        step, root = math.sqrt(now - before), math.sqrt(now)
        total = spent(fraction, alpha, spending)
        z.append(_critical_value(total - already, node, mass, step, root))
        edge = min(z[-1], WIDEST) * root
        inside = edge * NODES
        density = np.exp(-(((inside[:, None] - node) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
        node, mass = inside, edge * WEIGHTS * (density @ mass)
        before, already = now, total
    return np.array(z)


def _critical_value(probability: float, node: np.ndarray, mass: np.ndarray, step: float, root: float) -> float:
    """z with probability |score| >= z root at a look, where the score adds a step to one of the nodes."""

    def crossing(z: float) -> float:
        return float(mass @ (ndtr((node - z * root) / step) + ndtr((-node - z * root) / step)))

    if probability < LEAST_PROBABILITY:
        return math.inf

    def excess(z: float) -> float:  # on a logarithmic scale, as early looks may spend 1e-18
        return math.log(max(crossing(z), LEAST_PROBABILITY)) - math.log(probability)

    return float(brentq(excess, 0.0, 40.0, xtol=1e-6)) if excess(0.0) > 0 else 0.0


def nominal_level(z: float) -> float:
    """Two-sided level of an interval whose half-width is z standard errors, where the standard error is known."""
    return float(2 * ndtr(-z))


def projected_fraction(sampling_variance: float, label_variance: float, labels: float, last_labels: float) -> float:
    """The fraction of the last look's information at a look, projected from the look's own variance.

    sampling_variance: the part that labels do not lower; label_variance: the part that falls as one over their number;
    labels and last_labels: numbers of labels of the look and of the last one.
    """
    now = sampling_variance + label_variance
    last = sampling_variance + label_variance * labels / last_labels
    return last / now if now > 0 else labels / last_labels
