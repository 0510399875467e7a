"""Thresholds of the verdict: the values at which a check gives `caution` or `refuse`, and the source of each."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from arena_cje.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The values at which the checks of the verdict give `caution` or `refuse`."""

    # Overlap gates of the public package cje-eval 0.3: critical below a tenth, warning below three tenths.
    ess_refuse: float = 0.10
    ess_caution: float = 0.30
    near_zero_refuse: float = 0.85  # same gates
    top5_caution: float = 0.30  # same gates, together with the coefficient of variation
    cv_caution: float = 2.0
    # Weights that are not normalised: with a tail index below 2 they have no variance, and a mean off 1 is an error of
    # the same share of the value. In simulations their intervals covered .70-.85 without these two lines.
    tail_refuse: float = 2.0
    mean_weight_refuse: float = 0.10
    tail_caution: float = 1.0  # below 1 the mean of the weights is infinite (Hill 1975)
    mean_weight_z: float = 4.0  # normal tail of 6e-5: rare by chance among hundreds of policies
    # Of the standard error without it: a bias of a quarter takes a 95 % interval to 94.3 % when it is not counted.
    cap_bias_caution: float = 0.25
    # Effective labels: sound policies of a labelled Arena data set lay at shares of .60-.997 and the unhelpful one at
    # .005-.107 under 300 label masks at each of four coverages; below 10 labels sound ones are refused by chance. In
    # simulations with 50 to 62 labels sound policies lay above .31 in 98 % of draws, one without support below .31 in 99 %.
    label_share_refuse: float = 0.33
    label_share_caution: float = 0.50
    effective_labels_refuse: float = 10.0
    effective_labels_caution: float = 30.0
    # Isotonic fits need about 25 labels for a negligible bias in the experiments of cje-eval.
    labels_refuse: int = 10
    labels_caution: int = 30
    # Bootstrap intervals of plug-in direct estimates covered .86 with 50 labels and .94 with 250, the jackknife's .95-.97.
    bootstrap_caution: float = 200.0
    # A target without labels of its own is refused unless the slice shows that judge and oracle go together: a judge
    # without any correlation passes with the first level, a useful one, of the Spearman correlation below, fails with the second.
    judge_useful: float = 0.4
    judge_useless_level: float = 0.0025
    judge_useful_level: float = 0.04
    left_out_caution: float = 0.05  # share of rows without an input; fewer move a value in [0, 1] by .05 at most
    # Nats per token. A vocabulary of 128,000 tokens has a mean of -11.8 under the uniform distribution; floating point
    # numbers of single precision end at -103.
    implausible_logprob: float = -100.0
    zero_logprob_caution: float = 0.05  # field guides expect fewer than 5 % of log probabilities to be exactly zero
    extreme_ratio: float = 100.0  # and its inverse, as in the field guides' analysis settings
    very_extreme_ratio: float = 1000.0
    spearman_caution: float = 0.3  # below it a score explains under a tenth of the variance in rank
    # Fall of the calibrated reward over rising scores: a larger one comes from noise or from a covariate.
    fall_caution: float = 0.10
    # Boundary card, as in cje-eval: share of scores outside the labelled range, and share of rewards near the ends of
    # the calibrator's range.
    out_of_range_refuse: float = 0.05
    saturation_caution: float = 0.20
    # The public package cje-eval warned when labels of a policy's own draws were this far from the calibration.
    transport_margin: float = 0.05
    transport_prompts: float = 20.0  # effective ones, for a PASS
    transport_alpha: float = 0.05  # of the audit's intervals, for all audited policies together
    # Level of the second way to FAIL. Without it fifty labels let 2 to 7 % of values through that were .17 off, with it
    # under 1 %.
    transport_suspicion: float = 0.03
    own_labels: float = (
        50.0  # labelled prompts of a policy's own draws; with so many, support and transport are not checked
    )
    weighted_labels: float = 20.0  # effective labels of a label term; with so many, support is not checked


# Those that the account of a data set uses: others change no data set.
OF_DATA = ("implausible_logprob", "zero_logprob_caution", "extreme_ratio", "very_extreme_ratio")


def with_overrides(overrides: Mapping[str, float], *, where: str = "") -> Thresholds:
    """The default thresholds with some replaced by name; `where` begins the message about an unknown name."""
    names = [field.name for field in fields(Thresholds)]
    for name in overrides:
        if name not in names:
            raise UserError(f"{where}unknown threshold {name!r}{did_you_mean(name, names)}; known: {', '.join(names)}")
    return Thresholds(**overrides)
