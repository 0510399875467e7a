"""Triply robust estimation: doubly robust, with labels under raw weights (TR-CPO).

    V = mean_i [ g_i + W_i (R_i - q_i) + (L_i / p) W_i (Y_i - R_i) ]

p = m/n is the known share of labelled rows; R in the last term is held out. Consistent when either the calibrator
transports to the target or the weights are right. The labels have raw weights, so that poor overlap makes the interval
wide.

Robins, Rotnitzky & Zhao (1994), "Estimation of regression coefficients when some regressors are not always observed",
JASA; the name is that of the research code before the public package cje-eval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.estimation.robust import robust

if TYPE_CHECKING:
    from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("log_ratio", "fresh_score")
LABEL_TERM = True


def estimate(sample: Sample, options: Options) -> Point:
    """The doubly robust value with the label term, under raw weights."""
    return robust(sample, sample.raw, sample.index, sample.fresh_held_out, label_term=True)
