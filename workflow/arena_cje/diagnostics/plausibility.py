"""Plausibility of log probabilities: what cannot have been computed is rejected, what is suspicious is counted.

rejected      log p / tokens below `implausible_logprob`, where tokens were counted: no model gives every token of a
              response so little probability; such numbers stand for failed requests
zero          log p = 0 exactly: a response of probability one, or a failed request
extreme       ratios p' / p above `extreme_ratio` or below its inverse, and beyond `very_extreme_ratio`
equal         ratios of exactly one: all of them mean that target and base are the same policy
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.records import Reason

if TYPE_CHECKING:
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.records import Logged


@dataclass(frozen=True)
class Plausibility:
    """Counts of the log probabilities of the base responses under one target policy."""

    n_rows: int
    n_ratios: int  # rows with a log ratio, without the rejected ones
    n_rejected: int
    n_zero: int  # under the target or the base
    n_outside_support: int
    n_equal: int
    n_extreme: int
    n_very_extreme: int

    @property
    def zero_share(self) -> float:
        """Share of the scored rows with a log probability of exactly zero."""
        scored = self.n_ratios + self.n_rejected
        return self.n_zero / scored if scored else 0.0


def reject(
    logged: Logged, base_logprob: np.ndarray, n_tokens: np.ndarray, thresholds: Thresholds
) -> tuple[Logged, dict[str, Plausibility]]:
    """The logged rows without implausible log ratios, and the counts by target policy.

    base_logprob: nats under the base policy; n_tokens: tokens of the responses; (n,) each, NaN where unknown. Rows whose
    tokens were not counted are not rejected.
    """
    ratio, base = logged.log_ratio, base_logprob[:, None]  # (n, p), (n, 1)
    outside = np.isneginf(ratio)
    scored = ~np.isnan(ratio)
    target = np.where(outside, 0.0, ratio + base)  # (n, p) nats
    rejected = scored & (np.minimum(target, base) < thresholds.implausible_logprob * n_tokens[:, None])
    zero = scored & ((~outside & (target == 0)) | (base == 0))
    ratio = np.where(rejected, np.nan, ratio)
    distance = np.abs(np.where(np.isfinite(ratio), ratio, np.nan))
    counts = {}
    for k, policy in enumerate(logged.policies):
        with np.errstate(invalid="ignore"):
            counts[policy] = Plausibility(
                n_rows=len(ratio),
                n_ratios=int(np.sum(~np.isnan(ratio[:, k]))),
                n_rejected=int(rejected[:, k].sum()),
                n_zero=int(zero[:, k].sum()),
                n_outside_support=int(outside[:, k].sum()),
                n_equal=int(np.sum(ratio[:, k] == 0)),
                n_extreme=int(np.sum(distance[:, k] > np.log(thresholds.extreme_ratio))),
                n_very_extreme=int(np.sum(distance[:, k] > np.log(thresholds.very_extreme_ratio))),
            )
    return replace(logged, log_ratio=ratio), counts


def reasons(counts: Plausibility, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Cautions about log probabilities, for estimates that use them."""
    cautions = []
    if counts.n_rejected:
        text = (
            f"{counts.n_rejected} of {counts.n_rows} rows are left out: their log probabilities are below "
            f"{thresholds.implausible_logprob:g} nats per token, which no model produces"
        )
        cautions.append(Reason("implausible_logprobs", text, "caution"))
    if counts.zero_share > thresholds.zero_logprob_caution:
        text = (
            f"{100 * counts.zero_share:.1f} % of the log probabilities are exactly 0 (caution above "
            f"{100 * thresholds.zero_logprob_caution:.0f} %), which means probability 1; failed requests may have been "
            "recorded as 0"
        )
        cautions.append(Reason("zero_logprobs", text, "caution"))
    return tuple(cautions)
