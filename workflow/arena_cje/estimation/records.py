"""The records of estimation: logged rows, fresh draws, options, samples, estimates, verdicts.

Letters: n logged rows, p target policies, m fresh draws of a prompt, u usable rows of a policy, l labelled responses,
K folds of the oracle slice, r points of a judge's distribution, c covariates. Units: nats, [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from arena_cje.errors import UserError
from arena_cje.estimation import weights
from arena_cje.estimation.inference import (
    critical_value,
    kurtosis_df,
    normal_quantile,
    prompt_totals,
    variance_of_totals,
)
from arena_cje.estimation.short_repr import short_repr

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Judged:
    """Judge scores and covariates of responses, the inputs of a calibrator; leading shape (...)."""

    points: np.ndarray  # (..., r) in [0, 1]; r = 1 without a distribution, NaN where there is no score
    mass: np.ndarray  # (..., r) probability of each point; sums to one
    covariates: np.ndarray  # (..., c)

    __repr__ = short_repr

    @classmethod
    def of(
        cls,
        score: np.ndarray,
        covariates: np.ndarray | None = None,
        points: np.ndarray | None = None,
        mass: np.ndarray | None = None,
    ) -> Judged:
        """From scores (...), with covariates (..., c) and the judge's distribution (..., r) where there are any."""
        if covariates is None:
            covariates = np.empty((*score.shape, 0))
        if points is None or mass is None:
            return cls(score[..., None], np.ones((*score.shape, 1)), covariates)
        return cls(points, mass, covariates)

    @property
    def score(self) -> np.ndarray:
        """Mean score (...), NaN where there is none."""
        return self.points[..., 0] if self.points.shape[-1] == 1 else np.sum(self.points * self.mass, axis=-1)

    def __getitem__(self, rows: Any) -> Judged:
        return Judged(self.points[rows], self.mass[rows], self.covariates[rows])


@dataclass(frozen=True)
class Logged:
    """Responses of the base policy, one in each row, with their log ratios under every target policy."""

    base_policy: str
    policies: tuple[str, ...]  # p target policies, in declared order
    prompt_id: np.ndarray  # (n,) str
    log_ratio: np.ndarray  # (n, p) nats, target minus base; -inf outside the target's support, NaN where not scored
    judge_score: np.ndarray  # (n,) in [0, 1]; the mean, where the judge gives a distribution
    oracle_label: np.ndarray  # (n,) in [0, 1], NaN where unlabelled
    covariates: np.ndarray | None = None  # (n, c), in the units of the data
    judge_points: np.ndarray | None = None  # (n, r) scores of the judge's distribution
    judge_mass: np.ndarray | None = None  # (n, r) their probabilities; points of mass 0 pad rows with fewer
    token_logprob: np.ndarray | None = (
        None  # (n, p) nats per token under each target, for diagnostics; NaN where unknown
    )
    cluster_id: np.ndarray | None = None  # (n,) str; prompts that are one question share one; None: each is one
    label_probability: np.ndarray | None = None  # (n,) with which the label was bought; None where it is not known

    __repr__ = short_repr

    @property
    def question(self) -> np.ndarray:
        """What rows depend on each other by, (n,) str: their cluster where the data have clusters, else their prompt."""
        return self.prompt_id if self.cluster_id is None else self.cluster_id

    @property
    def labelled(self) -> np.ndarray:
        """Rows of the oracle slice, (n,) bool."""
        return ~np.isnan(self.oracle_label)

    @property
    def label_weight(self) -> np.ndarray | None:
        """Weights (n,) of the labels, see `design_weight`."""
        return design_weight(self.label_probability, self.labelled)

    @property
    def judged(self) -> Judged:
        """Scores and covariates, leading shape (n,)."""
        return Judged.of(self.judge_score, self.covariates, self.judge_points, self.judge_mass)


@dataclass(frozen=True)
class Draws:
    """Fresh responses of one target policy to the prompts of the n logged rows."""

    policy: str
    judge_score: np.ndarray  # (n, m) in [0, 1], NaN where a draw is missing
    oracle_label: np.ndarray  # (n, m) in [0, 1], NaN where unlabelled
    covariates: np.ndarray | None = None  # (n, m, c) of the draws
    judge_points: np.ndarray | None = None  # (n, m, r)
    judge_mass: np.ndarray | None = None  # (n, m, r)
    label_probability: np.ndarray | None = None  # (n, m) with which the label was bought; None where it is not known

    __repr__ = short_repr

    @property
    def label_weight(self) -> np.ndarray | None:
        """Weights (n, m) of the labels, see `design_weight`."""
        return design_weight(self.label_probability, ~np.isnan(self.scored_label))

    @property
    def judged(self) -> Judged:
        """Scores and covariates, leading shape (n, m)."""
        return Judged.of(self.judge_score, self.covariates, self.judge_points, self.judge_mass)

    @property
    def scored_label(self) -> np.ndarray:
        """Labels (n, m) of the draws that have a judge score, NaN elsewhere."""
        return np.where(np.isnan(self.judge_score), np.nan, self.oracle_label)


@dataclass(frozen=True)
class Labelled:
    """l responses of any policy that have a judge score and an oracle label: the oracle slice, or calibration data."""

    question: np.ndarray  # (l,) str, as in `Logged`
    judged: Judged  # leading shape (l,)
    oracle_label: np.ndarray  # (l,) in [0, 1]
    weight: np.ndarray | None = None  # (l,) of the labels, see `design_weight`

    __repr__ = short_repr


def design_weight(probability: np.ndarray | None, labelled: np.ndarray) -> np.ndarray | None:
    """Weights (...) of labels that were bought with known probabilities (...): 1 / probability, of mean one over the labels.

    Zero where there is no label. None, which is one for each label, where the probabilities of all labels are equal.
    """
    if probability is None or not labelled.any():
        return None
    bought = probability[labelled]
    if (bought == bought[0]).all():
        return None
    weight = np.zeros(labelled.shape)
    weight[labelled] = 1 / bought
    return weight / weight[labelled].mean()


def effective_number(weight: np.ndarray) -> float:
    """Kish's effective number of labels with weights (l,): their number, where all weights are equal."""
    return float(weight.sum() ** 2 / np.sum(weight**2))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of an estimate; `arena_cje.analyze` takes each of them as a keyword.

    seed: seed of the folds and of the bootstrap.
    n_folds: cross-fitting folds of the calibrator, of outcome models and of calibrated weights; at least 2.
    jackknife_folds: folds of the delete-one-fold variance of the calibrator; at least 2.
    rewards: "calibrated" maps judge scores to oracle labels, "judge" uses the scores themselves as rewards.
    calibration: "monotone" in the score; "two_stage" in an index of score and covariates; "auto" chooses between the two
        by held-out error.
    covariates: names of the covariates of the two-stage calibrator, such as "response_length"; none for "monotone".
    weights: "calibrated" or "raw" importance weights, for the doubly robust estimators.
    correction: what labels of the targets' own draws do to the fresh-draw mean of direct and of the doubly robust family:
        "joint" corrects all policies in one estimate, "plain" adds the mean residual of each target alone, "none" uses
        them for the transport audit only, which is for labels that are no random share of the draws.
    label_term: adds the term of labels under raw weights to the doubly robust estimators.
    clip: upper bound of the mean-one weights of raw-ips, above 0.
    var_cap: upper bound of the variance of calibrated mean-one weights, above 0.
    ess_floor: lower bound of the effective sample size of calibrated weights, as a share of the rows in (0, 1].
    inference: "jackknife", or "bootstrap" for the estimator direct alone.
    n_bootstrap: number of bootstrap replicates; at least 2.

    Raises a `UserError` for a value out of its range, and for covariates that the calibration would not use.
    """

    seed: int = 42
    n_folds: int = 5
    jackknife_folds: int = 20
    rewards: Literal["calibrated", "judge"] = "calibrated"
    calibration: Literal["monotone", "two_stage", "auto"] = "monotone"
    covariates: tuple[str, ...] = ()
    weights: Literal["calibrated", "raw"] = "calibrated"
    correction: Literal["joint", "plain", "none"] = "joint"
    label_term: bool = False
    clip: float = 100.0
    var_cap: float = 1.0
    ess_floor: float = 0.2
    inference: Literal["jackknife", "bootstrap"] = "jackknife"
    n_bootstrap: int = 2000

    def __post_init__(self) -> None:
        object.__setattr__(self, "covariates", tuple(self.covariates))  # a caller may pass a list
        for name in ("n_folds", "jackknife_folds", "n_bootstrap"):
            if getattr(self, name) < 2:
                raise UserError(f"{name} must be at least 2, got {getattr(self, name)}")
        for name in ("clip", "var_cap"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 < self.ess_floor <= 1:
            raise UserError(f"ess_floor must lie in (0, 1], got {self.ess_floor}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.covariates and self.calibration == "monotone":
            raise UserError(
                f"calibration 'monotone' uses the judge score alone, got covariates {', '.join(self.covariates)}; set "
                "calibration 'two_stage' or 'auto', or leave the covariates out"
            )

    @property
    def weight_variance(self) -> float:
        """Upper bound of the variance of stabilised weights, the lower of `var_cap` and that of `ess_floor`.

        ESS/n = 1/(1 + Var w).
        """
        return min(self.var_cap, 1 / self.ess_floor - 1)


CHOICES = {
    "rewards": ("calibrated", "judge"),
    "calibration": ("monotone", "two_stage", "auto"),
    "weights": ("calibrated", "raw"),
    "correction": ("joint", "plain", "none"),
    "inference": ("jackknife", "bootstrap"),
}


@dataclass(frozen=True)
class Sample:
    """The input of an estimator: one policy under one calibrator, u usable rows in the order of the logged ones.

    The value is computed from `reward`, the influence function from `held_out`, the rewards by calibrators that were
    fitted without the row's fold. Both are the oracle labels when every logged row has one. `index` is the held-out
    calibrated score in every case; weights and outcome models are functions of it.
    """

    log_ratio: np.ndarray  # (u,) nats; NaN where the estimator does not need it
    cluster: np.ndarray  # (u,) code of the prompt
    fold: np.ndarray  # (u,) cross-fitting fold of the prompt, for outcome models and weights
    label: np.ndarray  # (u,) oracle labels, NaN where unlabelled
    reward: np.ndarray  # (u,)
    held_out: np.ndarray  # (u,)
    index: np.ndarray  # (u,)
    fresh: np.ndarray  # (u, m) calibrated scores of fresh draws, NaN where one is missing; m = 0 without fresh draws
    fresh_held_out: np.ndarray  # (u, m)
    fresh_label: np.ndarray  # (u, m) labels of the target's own draws that correct the estimate
    weight_variance: float  # upper bound of the variance of stabilised weights
    label_weight: np.ndarray | None = None  # (u,) of the oracle labels, by their probabilities; None: all are equal
    fresh_label_weight: np.ndarray | None = None  # (u, m) of the labels of the target's own draws
    joint: tuple[float, np.ndarray] | None = (
        None  # fresh-draw mean and influence (u,) by the joint estimate, if it has one
    )

    __repr__ = short_repr

    @cached_property
    def raw(self) -> np.ndarray:
        """Raw importance weights (u,), mean one."""
        return weights.hajek(self.log_ratio)

    @cached_property
    def stabilised(self) -> np.ndarray:
        """Stabilised weights (2, u), mean one: with the bound on their variance, and without it."""
        return weights.simcal(self.raw, self.index, self.held_out, self.fold, cap=self.weight_variance)


@dataclass(frozen=True)
class Point:
    """The output of an estimator for one sample."""

    value: float
    influence: np.ndarray  # (u,) centred
    weight: np.ndarray | None = None  # (u,) mean one; None without weights
    bias: float = 0.0  # signed, of the bound on the variance of the weights; 0 where there is none

    __repr__ = short_repr


@dataclass(frozen=True)
class Weights:
    """Importance weights of one policy, mean one over the rows with a log ratio, NaN elsewhere."""

    raw: np.ndarray  # (n,)
    stabilised: np.ndarray  # (n,) as the estimator used them; the raw ones where it uses no weights

    __repr__ = short_repr


@dataclass(frozen=True)
class Floor:
    """Least standard errors of one policy's value and of its differences, by `arena_cje.estimation.label_floor`."""

    policy: str = ""
    value: float = 0.0
    differences: Mapping[str, float] = field(default_factory=dict)  # by the other policy

    def __sub__(self, other: Floor) -> Floor:
        """The floor of the difference; of two unrelated values, the root of the sum of squares."""
        return Floor(value=self.differences.get(other.policy, float(np.hypot(self.value, other.value))))


ROUNDING = 1e-12  # a smaller difference comes from the order of additions


@dataclass(frozen=True)
class Estimate:
    """A value with the parts of its uncertainty.

        v = G/(G-1) sum_c (sum_{i in c} influence_i)^2 / n^2  +  (K-1)/K sum_k (jackknife_k - mean)^2
        s^2 = max(v, floor^2),   se^2 = s^2 + bias^2
        interval = value +- c s   with P(|T + bias/s| <= c) = 1 - alpha, within the bounds of the value

    The first term is clustered by prompt, over the G prompts with a usable row. The second is the delete-one-fold
    jackknife over the oracle slice (Efron & Stein 1981): the whole estimator is evaluated again with the calibrator fitted
    without fold k. The floor is what labels that hardly vary leave open (`arena_cje.estimation.label_floor`). The bias,
    that of weights with bounded variance, is estimated; it widens the interval and does not move it. T has
    Welch-Satterthwaite degrees of freedom over the two terms, K - 1 for the second, and infinite ones for what the floor
    adds. With bootstrap replicates v is their variance, and the interval lies between their percentiles, or as far out as
    the floor. The difference of two
    estimates is a paired contrast: influence, jackknife, bias and replicates are subtracted row by row, fold by fold,
    replicate by replicate, so that common errors cancel.
    """

    value: float
    influence: np.ndarray  # (n,) centred, on the scale of the mean over n rows; 0 where a row was not used
    cluster: np.ndarray  # (n,) int, prompt codes
    jackknife: np.ndarray  # (K,) values without each fold of the oracle slice; empty where no calibrator was needed
    used: np.ndarray  # (n,) bool; the other rows lack an input of the estimator
    bias: float = 0.0
    replicates: np.ndarray = field(
        default_factory=lambda: np.empty(0)
    )  # (B,) bootstrap values; B = 0 without a bootstrap
    floor: Floor = field(default_factory=Floor)
    bounds: tuple[float, float] = (-np.inf, np.inf)  # of the true value

    def __repr__(self) -> str:
        low, high = self.interval()
        return (
            f"Estimate({self.value:.3f}, se {self.se:.3f}, 95 % interval [{low:.3f}, {high:.3f}], "
            f"{self.n_used} of {len(self.used)} rows, {self.n_clusters} prompts)"
        )

    @property
    def n_used(self) -> int:
        """Number of rows that the estimate uses."""
        return int(self.used.sum())

    @property
    def n_clusters(self) -> int:
        """Number of prompts with a usable row, G."""
        return len(self._totals)

    @cached_property
    def _totals(self) -> np.ndarray:
        """Sum of the influence of every prompt with a usable row, (G,)."""
        if self.used.all():
            return prompt_totals(self.influence, self.cluster)
        return prompt_totals(self.influence[self.used], self.cluster[self.used])

    @cached_property
    def sampling_variance(self) -> float:
        """Variance over prompts, the first term of s^2; NaN with fewer than two."""
        return variance_of_totals(self._totals, len(self.influence))

    @cached_property
    def oracle_variance(self) -> float:
        """Variance of the calibrator over the oracle slice, the second term of s^2."""
        folds = len(self.jackknife)
        if folds < 2:
            return 0.0
        return float((folds - 1) / folds * np.sum((self.jackknife - self.jackknife.mean()) ** 2))

    @cached_property
    def _variance(self) -> float:
        """Variance as the data show it, v."""
        if len(self.replicates):
            return float(self.replicates.var(ddof=1))
        return self.sampling_variance + self.oracle_variance

    @property
    def spread(self) -> float:
        """Standard error without the bias, s."""
        return float(np.maximum(np.sqrt(self._variance), self.floor.value))  # NaN stays NaN

    @property
    def se(self) -> float:
        """Standard error, bias included."""
        return float(np.hypot(self.spread, self.bias))

    @cached_property
    def df(self) -> float:
        """Welch-Satterthwaite degrees of freedom of s^2; NaN with fewer than two prompts."""
        if len(self._totals) < 2:
            return float("nan")
        sampling, oracle = self.sampling_variance, self.oracle_variance
        prompts = kurtosis_df(self._totals)
        spread = sampling**2 / prompts + oracle**2 / max(len(self.jackknife) - 1, 1)
        variance = max(sampling + oracle, self.floor.value**2)
        return float(prompts) if spread == 0 else float(variance**2 / spread)

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Two-sided interval at level 1 - alpha, within the bounds unless the value itself lies outside them."""
        if len(self.replicates):
            low, high = (float(end) for end in np.quantile(self.replicates, [alpha / 2, 1 - alpha / 2]))
            half = normal_quantile(alpha) * self.floor.value
            low, high = min(low, self.value - half), max(high, self.value + half)
        else:
            spread = self.spread
            half = critical_value(self.bias / spread if self.bias else 0.0, self.df, alpha) * spread
            low, high = self.value - half, self.value + half
        lowest, highest = min(self.bounds[0], self.value), max(self.bounds[1], self.value)
        return float(np.maximum(low, lowest)), float(np.minimum(high, highest))

    def __sub__(self, other: Estimate) -> Estimate:
        """The paired contrast; both estimates must have the same rows, jackknife folds and bootstrap draws."""
        if not np.array_equal(self.cluster, other.cluster):
            raise ValueError("a contrast needs two estimates on the same rows")
        if len(self.jackknife) and len(other.jackknife) and len(self.jackknife) != len(other.jackknife):
            raise ValueError("a contrast needs two estimates with the same folds of the oracle slice")
        if len(self.replicates) != len(other.replicates):
            raise ValueError("a contrast needs two estimates with the same bootstrap draws")
        # An estimate that needs no calibrator has the same value without any fold.
        own_jackknife = self.jackknife if len(self.jackknife) else np.full(len(other.jackknife), self.value)
        other_jackknife = other.jackknife if len(other.jackknife) else np.full(len(self.jackknife), other.value)
        # With one prompt the variance is unknown: zeros in its influence would count as certainty.
        has_variance = min(self.n_clusters, other.n_clusters) >= 2
        difference = self.value - other.value
        return Estimate(
            0.0 if abs(difference) < ROUNDING else difference,
            self.influence - other.influence if has_variance else np.full(len(self.influence), np.nan),
            self.cluster,
            own_jackknife - other_jackknife,
            self.used | other.used,
            self.bias - other.bias,
            self.replicates - other.replicates,
            self.floor - other.floor,
            (self.bounds[0] - other.bounds[1], self.bounds[1] - other.bounds[0]),
        )


LEVELS = ("ok", "caution", "refuse")


@dataclass(frozen=True)
class Reason:
    """A finding behind a verdict."""

    code: str  # machine-readable
    sentence: str
    level: str = "ok"  # the level that it requires; ok is for information


@dataclass(frozen=True)
class Verdict:
    """Whether an estimate may be published, by the level of its worst reason."""

    reasons: tuple[Reason, ...] = ()

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.level, "; ".join(self.grounds))))

    @property
    def level(self) -> str:
        """The worst level among the reasons: ok, caution or refuse."""
        return max((reason.level for reason in self.reasons), key=LEVELS.index, default="ok")

    @property
    def ok(self) -> bool:
        """Whether the estimate is published."""
        return self.level != "refuse"

    @property
    def grounds(self) -> list[str]:
        """Sentences of the reasons that have the verdict's level; empty where the level is ok."""
        return [reason.sentence for reason in self.reasons if reason.level == self.level != "ok"]
