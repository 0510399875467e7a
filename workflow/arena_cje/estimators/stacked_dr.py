"""Doubly robust estimators stacked for the least variance.

    V = sum_c a_c V_c,   a = argmin a' Cov(influence) a on the simplex,   c in dr-cpo, tmle, mrdr

The three have the same weights and folds. The ridge of the quadratic is relative to its trace, so that the shares do not
depend on the unit of the reward, and equal columns have equal shares.

van der Laan, Polley & Hubbard (2007), "Super learner", Statistical Applications in Genetics and Molecular Biology.
"""

from __future__ import annotations

import numpy as np

from arena_cje.estimation.records import Options, Point, Sample
from arena_cje.estimation.weights import smallest_on_simplex
from arena_cje.estimators import dr_cpo, mrdr, tmle

NEEDS = ("log_ratio", "fresh_score")

COMPONENTS = (dr_cpo, tmle, mrdr)


def estimate(sample: Sample, options: Options) -> Point:
    """The mixture of dr-cpo, tmle and mrdr with the least variance."""
    points = [component.estimate(sample, options) for component in COMPONENTS]
    influence = np.array([point.influence for point in points])  # (c, u)
    share = smallest_on_simplex(np.cov(influence))
    value = float(share @ [point.value for point in points])
    return Point(value, share @ influence, points[0].weight)
