"""The records that estimation works on: logged rows, fresh draws, estimates, verdicts.

Letters: n logged rows, p target policies, m fresh draws of a prompt, l labelled responses, K folds of the oracle slice,
r points of a judge's distribution, c covariates. Units: nats, [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from arena_cje.errors import UserError
from arena_cje.estimation import weights
from arena_cje.estimation.inference import critical_value, kurtosis_df, prompt_totals, variance_of_totals


@dataclass(frozen=True)
class Judged:
    """What is known of responses before any label: what the judge says of them, and covariates; leading shape (...)."""

    points: np.ndarray  # (..., r) in [0, 1]; one point where the judge is certain, NaN where there is no score
    mass: np.ndarray  # (..., r) probability of each point; sums to one
    covariates: np.ndarray  # (..., c)

    @classmethod
    def of(
        cls,
        score: np.ndarray,
        covariates: np.ndarray | None = None,
        points: np.ndarray | None = None,
        mass: np.ndarray | None = None,
    ) -> Judged:
        """From scores (...) alone, or with covariates (..., c) and the judge's distribution (..., r)."""
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
    """Responses of the base policy, one a row, scored under every target policy."""

    base_policy: str
    policies: tuple[str, ...]  # p target policies, in declared order
    prompt_id: np.ndarray  # (n,) str; rows of one prompt form a cluster
    log_ratio: np.ndarray  # (n, p) nats, target minus base; -inf outside the target's support, NaN where not scored
    judge_score: np.ndarray  # (n,) in [0, 1]; the mean, where the judge gives a distribution
    oracle_label: np.ndarray  # (n,) in [0, 1], NaN where unlabelled
    covariates: np.ndarray | None = None  # (n, c), in the units they came in
    judge_points: np.ndarray | None = None  # (n, r) scores that an uncertain judge may give
    judge_mass: np.ndarray | None = None  # (n, r) and their probabilities; 0 pads rows with fewer points
    token_logprob: np.ndarray | None = None  # (n, p) nats a token under each target, for diagnostics; NaN where unknown

    @property
    def labelled(self) -> np.ndarray:
        """Rows of the oracle slice, (n,) bool."""
        return ~np.isnan(self.oracle_label)

    @property
    def judged(self) -> Judged:
        return Judged.of(self.judge_score, self.covariates, self.judge_points, self.judge_mass)


@dataclass(frozen=True)
class Draws:
    """Fresh responses of one target policy, aligned with the logged rows."""

    policy: str
    judge_score: np.ndarray  # (n, m) in [0, 1], NaN where a draw is missing
    oracle_label: np.ndarray  # (n, m) in [0, 1], NaN where unlabelled
    covariates: np.ndarray | None = None  # (n, m, c), each draw's own
    judge_points: np.ndarray | None = None  # (n, m, r)
    judge_mass: np.ndarray | None = None  # (n, m, r)

    @property
    def judged(self) -> Judged:
        return Judged.of(self.judge_score, self.covariates, self.judge_points, self.judge_mass)

    @property
    def scored_label(self) -> np.ndarray:
        """Labels (n, m) of the draws that have a judge score, NaN elsewhere."""
        return np.where(np.isnan(self.judge_score), np.nan, self.oracle_label)


@dataclass(frozen=True)
class Labelled:
    """Judged responses with labels that calibrate beside the logged ones, whoever gave them: l of them."""

    prompt_id: np.ndarray  # (l,) str
    judged: Judged  # leading shape (l,)
    oracle_label: np.ndarray  # (l,) in [0, 1]


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
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.covariates and self.calibration == "monotone":
            raise UserError(
                f"calibration 'monotone' sees the judge score alone, but covariates are given ({', '.join(self.covariates)}); "
                "choose calibration 'two_stage' or 'auto', or leave them out"
            )

    @property
    def weight_variance(self) -> float:
        """Greatest variance of stabilised weights: the tighter of both limits, as ESS/n = 1/(1 + Var w)."""
        return min(self.var_cap, 1 / self.ess_floor - 1)


CHOICES = {
    "rewards": ("calibrated", "judge"),
    "calibration": ("monotone", "two_stage", "auto"),
    "weights": ("calibrated", "raw"),
    "inference": ("jackknife", "bootstrap"),
}


@dataclass(frozen=True)
class Sample:
    """All that an estimator sees of one policy under one calibrator: its u usable rows, in the order of the logged ones.

    `reward` makes the point estimate; `held_out` comes from calibrators that did not see the row's fold and makes the
    influence function. Both are the raw labels when every logged row is labelled. `index`, the held-out calibrated score
    also then, orders responses by quality.
    """

    log_ratio: np.ndarray  # (u,) nats; NaN throughout where the estimator does not ask for it
    cluster: np.ndarray  # (u,) code of the prompt
    fold: np.ndarray  # (u,) cross-fitting fold of the prompt, for what is fitted to logged rows
    label: np.ndarray  # (u,) oracle labels, NaN where unlabelled
    reward: np.ndarray  # (u,)
    held_out: np.ndarray  # (u,)
    index: np.ndarray  # (u,)
    fresh: np.ndarray  # (u, m) calibrated scores of fresh draws, NaN where one is missing; m = 0 without any
    fresh_held_out: np.ndarray  # (u, m)
    fresh_label: np.ndarray  # (u, m) labels of the target's own draws
    weight_variance: float  # cap on the variance of stabilised weights

    @cached_property
    def raw(self) -> np.ndarray:
        """Importance weights (u,), mean one."""
        return weights.hajek(self.log_ratio)

    @cached_property
    def stabilised(self) -> np.ndarray:
        """Monotone fits of the weights (2, u), mean one: with the cap on their variance, and without."""
        return weights.simcal(self.raw, self.index, self.held_out, self.fold, cap=self.weight_variance)


@dataclass(frozen=True)
class Point:
    """What an estimator returns: a value, how each row moves it, and the weights it gave the rows, if any."""

    value: float
    influence: np.ndarray  # (u,) centred
    weight: np.ndarray | None = None  # (u,) mean one
    bias: float = 0.0  # how far the value was moved on purpose, signed: 0 where nothing was traded for variance


@dataclass(frozen=True)
class Weights:
    """Importance weights of one policy, mean one over the rows that have them, NaN elsewhere."""

    raw: np.ndarray  # (n,)
    stabilised: np.ndarray  # (n,) those the estimator used; the raw ones where it uses none


@dataclass(frozen=True)
class Estimate:
    """A value with everything its uncertainty is made of.

        s^2 = G/(G-1) sum_c (sum_{i in c} influence_i)^2 / n^2  +  (K-1)/K sum_k (jackknife_k - mean)^2
        se^2 = s^2 + bias^2,   interval = value +- c s   with P(|T + bias/s| <= c) = 1 - alpha

    The first term is clustered by prompt, over the G prompts with a usable row; the second is the delete-one-fold
    jackknife over the oracle slice (Efron & Stein 1981), where the whole estimator is evaluated again with the
    calibrator that never saw fold k. A bias taken on purpose, such as that of capped weights, is known up to noise: it
    widens the interval and does not move it. T has Welch-Satterthwaite degrees of freedom over the two terms, K - 1 for
    the second. With bootstrap replicates the standard error is theirs and the interval runs between their percentiles.
    Subtraction gives a paired contrast: influence, jackknife, bias and replicates are subtracted row by row, fold by
    fold, draw by draw, so that what is shared cancels.
    """

    value: float
    influence: np.ndarray  # (n,) centred, on the scale of the mean over n rows; 0 where a row was not used
    cluster: np.ndarray  # (n,) int, one code per prompt
    jackknife: np.ndarray  # (K,) values without each fold of the oracle slice; empty where no calibration was needed
    used: np.ndarray  # (n,) bool; the other rows lacked what the estimator needs
    bias: float = 0.0
    replicates: np.ndarray = field(default_factory=lambda: np.empty(0))  # (B,) bootstrap values; empty without

    @property
    def n_used(self) -> int:
        return int(self.used.sum())

    @property
    def n_clusters(self) -> int:
        """Prompts with a usable row: the others carry no information."""
        return len(self._totals)

    @cached_property
    def _totals(self) -> np.ndarray:
        """Summed influence of every prompt with a usable row, (G,)."""
        if self.used.all():
            return prompt_totals(self.influence, self.cluster)
        return prompt_totals(self.influence[self.used], self.cluster[self.used])

    @cached_property
    def sampling_variance(self) -> float:
        """Variance over prompts, NaN with fewer than two that have a usable row."""
        return variance_of_totals(self._totals, len(self.influence))

    @cached_property
    def oracle_variance(self) -> float:
        """Variance over the oracle slice: the calibrator was fitted on few labels."""
        folds = len(self.jackknife)
        if folds < 2:
            return 0.0
        return float((folds - 1) / folds * np.sum((self.jackknife - self.jackknife.mean()) ** 2))

    @property
    def spread(self) -> float:
        """Standard error apart from the bias."""
        if len(self.replicates):
            return float(self.replicates.std(ddof=1))
        return float(np.sqrt(self.sampling_variance + self.oracle_variance))

    @property
    def se(self) -> float:
        return float(np.hypot(self.spread, self.bias))

    @cached_property
    def df(self) -> float:
        """Welch-Satterthwaite degrees of freedom, NaN with fewer than two prompts; the bias has none of its own."""
        if len(self._totals) < 2:
            return float("nan")
        sampling, oracle = self.sampling_variance, self.oracle_variance
        prompts = kurtosis_df(self._totals)
        spread = sampling**2 / prompts + oracle**2 / max(len(self.jackknife) - 1, 1)
        return float(prompts) if spread == 0 else float((sampling + oracle) ** 2 / spread)

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Two-sided interval at level 1 - alpha."""
        if len(self.replicates):
            low, high = np.quantile(self.replicates, [alpha / 2, 1 - alpha / 2])
            return float(low), float(high)
        spread = self.spread
        half = critical_value(self.bias / spread if self.bias else 0.0, self.df, alpha) * spread
        return self.value - half, self.value + half

    def __sub__(self, other: Estimate) -> Estimate:
        if not np.array_equal(self.cluster, other.cluster):
            raise ValueError("a contrast needs two estimates on the same rows")
        if len(self.jackknife) and len(other.jackknife) and len(self.jackknife) != len(other.jackknife):
            raise ValueError("a contrast needs two estimates with the same folds of the oracle slice")
        if len(self.replicates) != len(other.replicates):
            raise ValueError("a contrast needs two estimates with the same bootstrap draws")
        mine = self.jackknife if len(self.jackknife) else np.full(len(other.jackknife), self.value)
        its = other.jackknife if len(other.jackknife) else np.full(len(self.jackknife), other.value)
        # A side without a variance of its own has no influence to speak of, and must not count as certain.
        known = min(self.n_clusters, other.n_clusters) >= 2
        return Estimate(
            self.value - other.value,
            self.influence - other.influence if known else np.full(len(self.influence), np.nan),
            self.cluster,
            mine - its,
            self.used | other.used,
            self.bias - other.bias,
            self.replicates - other.replicates,
        )


LEVELS = ("ok", "caution", "refuse")


@dataclass(frozen=True)
class Reason:
    """Why a verdict is what it is: a code to grep, a sentence to read, the level it asks for (ok informs only)."""

    code: str
    sentence: str
    level: str = "ok"


@dataclass(frozen=True)
class Verdict:
    """May this estimate be published? The level of its worst reason."""

    reasons: tuple[Reason, ...] = ()

    @property
    def level(self) -> str:
        return max((reason.level for reason in self.reasons), key=LEVELS.index, default="ok")

    @property
    def ok(self) -> bool:
        return self.level != "refuse"

    @property
    def grounds(self) -> list[str]:
        """Sentences behind the level: what refuses, else what calls for caution; none where all is well."""
        return [reason.sentence for reason in self.reasons if reason.level == self.level != "ok"]
