"""Where a line of the verdict turns to caution or to refuse, and where each number comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from arena_cje.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where a line turns to caution or to refuse."""

    # Overlap gates of the public package cje-eval 0.3: critical below a tenth, warning below three tenths.
    ess_refuse: float = 0.10
    ess_caution: float = 0.30
    near_zero_refuse: float = 0.85  # same gates
    top5_caution: float = 0.30  # same gates, together with the coefficient of variation
    cv_caution: float = 2.0
    tail_caution: float = 1.0  # below 1 the mean of the weights is infinite (Hill 1975)
    mean_weight_z: float = 4.0  # normal tail of 6e-5: rare by chance among hundreds of policies
    # Of the standard error without it: a bias of a quarter takes a 95 % interval to 94.3 % when it is not counted.
    cap_bias_caution: float = 0.25
    # Effective labels: sound policies of a labelled Arena data set lay at shares of .60-.997 and the unhelpful one at
    # .005-.107 under 300 label masks at each of four coverages; below 10 labels sound ones are refused by chance.
    label_share_refuse: float = 0.25
    label_share_caution: float = 0.50
    effective_labels_refuse: float = 10.0
    effective_labels_caution: float = 30.0
    # Isotonic fits need about 25 labels for a negligible bias in the experiments of cje-eval.
    labels_refuse: int = 10
    labels_caution: int = 30
    spearman_caution: float = 0.3  # below it a score explains under a tenth of the variance in rank


def moved(given: Mapping[str, float], *, where: str = "") -> Thresholds:
    """The thresholds with those given by name moved; `where` begins the sentence that refuses an unknown name."""
    known = [field.name for field in fields(Thresholds)]
    for name in given:
        if name not in known:
            raise UserError(f"{where}unknown threshold {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    return Thresholds(**given)
