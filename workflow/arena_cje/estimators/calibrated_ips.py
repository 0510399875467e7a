"""Inverse propensity scoring with calibrated weights (SIMCal).

    V = sum(w R) / sum(w),   influence_i = w_i (R_i - f_i) + W_i (f_i - V),   w = monotone fit of W on f
    bias = V - V_uncapped,   V_uncapped = the same with weights whose variance is left as it is

f is the held-out calibrated score. Only E[W | S] matters for the mean of a reward that is a function of the score;
fitting it as a monotone function takes the rest of the weights' variation out of w. The fit is itself made from W,
which is why the influence of f keeps the raw weights, while the residual R - f, zero unless rewards are raw labels,
has the fitted ones. This is the influence function of E[E[W | S] f], which is also that of snips below full coverage:
away from the cap the standard error is about that of snips. What is gained is robustness to single heavy rows, not
precision.

Right when E[W | S] is monotone in the reward or a mixture of both directions. The variance cap keeps half of the
sample effective whatever the overlap, and where it binds draws V towards the base policy's value. The influence
function does not see that; the bias is measured against uncapped weights and widens the interval. Without overlap the
uncapped weights are wrong too, and only the raw weights tell.

van der Laan, Lin, Carone & Luedtke (2025), "Stabilized inverse probability weighting via isotonic calibration", CLeaR;
the estimator's name is that of the public package cje-eval.
"""

from __future__ import annotations

from arena_cje.estimation.records import Options, Point, Sample
from arena_cje.estimation.weighted import weighted_mean

NEEDS = ("log_ratio",)


def estimate(sample: Sample, options: Options) -> Point:
    weight, uncapped = sample.stabilised  # (u,) each, mean one
    point = weighted_mean(weight, sample)
    influence = point.influence + (sample.raw - weight) * (sample.index - point.value)
    bias = point.value - weighted_mean(uncapped, sample).value
    return Point(point.value, influence - influence.mean(), weight, bias)
