"""The records that estimation works on: logged rows, fresh draws, estimates, verdicts.

Letters: n logged rows, p target policies, m fresh draws of a prompt, K folds of the oracle slice. Units: nats, [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from arena_cje.errors import UserError
from arena_cje.estimation.inference import clustered_variance


@dataclass(frozen=True)
class Logged:
    """Responses of the base policy, one a row, scored under every target policy."""

    base_policy: str
    policies: tuple[str, ...]  # p target policies, in declared order
    prompt_id: np.ndarray  # (n,) str; rows of one prompt form a cluster
    log_ratio: np.ndarray  # (n, p) nats, target minus base; -inf outside the target's support, NaN where not scored
    judge_score: np.ndarray  # (n,) in [0, 1]
    oracle_label: np.ndarray  # (n,) in [0, 1], NaN where unlabelled

    @property
    def labelled(self) -> np.ndarray:
        """Rows of the oracle slice, (n,) bool."""
        return ~np.isnan(self.oracle_label)


@dataclass(frozen=True)
class Draws:
    """Fresh responses of one target policy, aligned with the logged rows."""

    policy: str
    judge_score: np.ndarray  # (n, m) in [0, 1], NaN where a draw is missing
    oracle_label: np.ndarray  # (n, m) in [0, 1], NaN where unlabelled


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user may set about estimation."""

    seed: int = 42
    n_folds: int = 5  # cross-fitting
    jackknife_folds: int = 20  # delete-one-fold variance of the calibrator
    clip: float = 100.0  # of mean-one weights, raw-ips only
    var_cap: float = 1.0  # greatest variance of stabilised mean-one weights
    ess_floor: float = 0.2  # least effective sample share of stabilised weights

    def __post_init__(self) -> None:
        for name in ("n_folds", "jackknife_folds"):
            if getattr(self, name) < 2:
                raise UserError(f"{name} must be at least 2, got {getattr(self, name)}")
        for name in ("clip", "var_cap"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 < self.ess_floor <= 1:
            raise UserError(f"ess_floor must lie in (0, 1], got {self.ess_floor}")

    @property
    def weight_variance(self) -> float:
        """Greatest variance of stabilised weights: the tighter of both limits, as ESS/n = 1/(1 + Var w)."""
        return min(self.var_cap, 1 / self.ess_floor - 1)


@dataclass(frozen=True)
class PolicyData:
    """What an estimator sees of one policy: its u usable rows, in the order of the logged ones."""

    log_ratio: np.ndarray  # (u,) nats; NaN throughout where the estimator does not ask for it
    inner_fold: np.ndarray  # (u,) fold of the prompt when weights are stacked
    outer_fold: np.ndarray  # (u,) fold of the prompt when weights are cross-fitted


@dataclass(frozen=True)
class Rewards:
    """Calibrated scores of one policy's u usable rows, on the oracle's scale.

    `value` makes the point estimate; `held_out` comes from calibrators that did not see the row's fold and makes the
    influence function. Both are the raw labels when every logged row is labelled. `index` orders responses by quality.
    """

    value: np.ndarray  # (u,)
    held_out: np.ndarray  # (u,)
    index: np.ndarray  # (u,) held-out calibrated score, also at full coverage
    fresh: np.ndarray  # (u, m), NaN where a draw is missing; m = 0 without fresh draws
    fresh_held_out: np.ndarray  # (u, m)


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

        se^2 = G/(G-1) sum_c (sum_{i in c} influence_i)^2 / n^2  +  (K-1)/K sum_k (jackknife_k - mean)^2  +  bias^2

    The first term is clustered by prompt, over the G prompts with a usable row; the second is the delete-one-fold
    jackknife over the oracle slice (Efron & Stein 1981), where the whole estimator is evaluated again with the
    calibrator that never saw fold k. The third is a bias taken on purpose, such as that of capped weights: it is known
    up to noise, so that the interval is widened by it, not moved. Degrees of freedom by Welch-Satterthwaite over the
    first two terms (G - 1 and K - 1). Subtraction gives a paired contrast: influence, jackknife and bias are subtracted
    row by row and fold by fold, so that what is shared cancels.
    """

    value: float
    influence: np.ndarray  # (n,) centred, on the scale of the mean over n rows; 0 where a row was not used
    cluster: np.ndarray  # (n,) int, one code per prompt
    jackknife: np.ndarray  # (K,) values without each fold of the oracle slice; empty where no calibration was needed
    used: np.ndarray  # (n,) bool; the other rows lacked what the estimator needs
    bias: float = 0.0

    @property
    def n_used(self) -> int:
        return int(self.used.sum())

    @property
    def n_clusters(self) -> int:
        """Prompts with a usable row: the others carry no information."""
        return len(np.unique(self.cluster[self.used]))

    @property
    def sampling_variance(self) -> float:
        """Variance over prompts, NaN with fewer than two that have a usable row."""
        return clustered_variance(self.influence[self.used], self.cluster[self.used], len(self.influence))

    @property
    def oracle_variance(self) -> float:
        """Variance over the oracle slice: the calibrator was fitted on few labels."""
        folds = len(self.jackknife)
        if folds < 2:
            return 0.0
        return float((folds - 1) / folds * np.sum((self.jackknife - self.jackknife.mean()) ** 2))

    @property
    def se(self) -> float:
        return float(np.sqrt(self.sampling_variance + self.oracle_variance + self.bias**2))

    @property
    def df(self) -> float:
        """Welch-Satterthwaite degrees of freedom, NaN with fewer than two prompts; the bias has none of its own."""
        sampling, oracle = self.sampling_variance, self.oracle_variance
        prompts = max(self.n_clusters - 1, 1)
        spread = sampling**2 / prompts + oracle**2 / max(len(self.jackknife) - 1, 1)
        return float(prompts) if spread == 0 else float((sampling + oracle) ** 2 / spread)

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Two-sided t interval at level 1 - alpha."""
        half = float(stats.t.ppf(1 - alpha / 2, self.df)) * self.se
        return self.value - half, self.value + half

    def __sub__(self, other: Estimate) -> Estimate:
        if not np.array_equal(self.cluster, other.cluster):
            raise ValueError("a contrast needs two estimates on the same rows")
        if len(self.jackknife) and len(other.jackknife) and len(self.jackknife) != len(other.jackknife):
            raise ValueError("a contrast needs two estimates with the same folds of the oracle slice")
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
