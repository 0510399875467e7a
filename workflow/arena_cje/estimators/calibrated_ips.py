"""Inverse propensity scoring with calibrated weights (SIMCal).

    V = sum(w R) / sum(w),   influence_i = w_i (R_i - f_i) + W_i (f_i - V),   w = monotone fit of W on f
    bias = V - V_uncapped,   V_uncapped = the same with weights of unbounded variance

f is the held-out calibrated score. The mean of a reward that is a function of the score depends on the weights through
E[W | S] alone; a monotone fit of it removes the rest of their variation from w. The fit itself depends on W, so the
influence of f has the raw weights; the residual R - f, which is zero unless the rewards are oracle labels, has the fitted
ones. This is the influence function of E[E[W | S] f], which is also that of snips below full coverage: where the cap does
not bind, the standard error is about that of snips. The gain is robustness to single heavy rows, not precision.

Consistent when E[W | S] is monotone in the reward, or a mixture of an increasing and a decreasing function of it. The
variance cap keeps the effective sample size at half of the rows or more, whatever the overlap; where it binds, it moves V
towards the base policy's value. The influence function does not include this bias; it is estimated by the uncapped
weights and widens the interval. Without overlap the uncapped weights are wrong too, and only the raw weights show it.

van der Laan, Lin, Carone & Luedtke (2025), "Stabilized inverse probability weighting via isotonic calibration", CLeaR;
the estimator's name is that of the public package cje-eval.
"""

from __future__ import annotations

from arena_cje.estimation.records import Options, Point, Sample
from arena_cje.estimation.weighted import weighted_mean

NEEDS = ("log_ratio",)


def estimate(sample: Sample, options: Options) -> Point:
    """The mean reward under stabilised weights, with the bias of the variance cap."""
    weight, uncapped = sample.stabilised  # (u,) each, mean one
    point = weighted_mean(weight, sample)
    influence = point.influence + (sample.raw - weight) * (sample.index - point.value)
    bias = point.value - weighted_mean(uncapped, sample).value
    return Point(point.value, influence - influence.mean(), weight, bias)
