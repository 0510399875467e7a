"""The size of a study that compares policies by paired differences, from a pilot with labels of all policies.

    V(n, m) = s_e / n + s_c / m,   half-width = t_{1 - alpha/2} s,   detectable difference = (t_{1 - alpha/2T} + t_power) s

n prompts have judged responses of all policies, m of them labels. s_e and s_c are the variance over prompts and that of the
labels' jackknife of a difference in the pilot, times the pilot's n and m. Policies may have different numbers of labels; m is
the largest of them, and a plan has them in the proportions of the pilot. T differences are corrected for their number where
they are to be detected, since decisions are; intervals are not.

A pilot of few labels has imprecise variances, and so has the study that is planned: V^ is about V chi^2 / df in both, with
Satterthwaite's degrees of freedom. So a plan has s^2 = V^(n, m) k, and the study reports at most 1.1 times the width
that it was planned for with probability .9:

    k = max(1, F_.9(df of the study, df of the pilot) / 1.1^2)

Satterthwaite (1946), "An approximate distribution of estimates of variance components", Biometrics; Browne (1995), "On the use
of a pilot sample for sample size determination", Statistics in Medicine, for plans that hold with a given probability.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from arena_cje.errors import UserError
from arena_cje.estimation.inference import kurtosis_df, prompt_totals
from arena_cje.estimation.short_repr import short_repr
from arena_cje.planning.sample_size import MIN_LABELS, Costs, Variance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arena_cje.estimation.records import Estimate

ASSURANCE = 0.9  # probability that a planned study is as precise as planned,
TOLERANCE = 1.1  # up to this factor of its width
STUDY_FOLDS = 20  # jackknife folds of the study's own analysis
MAX_PROMPTS = 10**7  # beyond it a plan is no plan
CANDIDATES = 500  # numbers of labels that are compared, before those between the best one's neighbours


@dataclass(frozen=True)
class Difference:
    """The variance of one target's difference to the base, as a pilot shows it."""

    variance: Variance  # s_e and s_c
    prompts_df: float  # degrees of freedom of s_e in the pilot
    labels_df: float  # of s_c

    @classmethod
    def of(cls, difference: Estimate, labels: int) -> Difference | None:
        """Components of the variance of an estimated difference with jackknife values; None where it does not vary at all.

        labels: m of the pilot.
        """
        sampling, calibration = difference.sampling_variance, difference.oracle_variance
        # The label floor counts as variance due to labels.
        calibration += max(0.0, difference.floor.value**2 - sampling - calibration)
        if not sampling + calibration > 0:
            return None
        totals = prompt_totals(difference.influence[difference.used], difference.cluster[difference.used])
        return cls(
            Variance(sampling * difference.n_clusters, calibration * labels),
            kurtosis_df(totals),
            kurtosis_df(difference.jackknife),
        )


@dataclass(frozen=True)
class Pilot:
    """Inputs of a plan: the variances and sizes of the pilot."""

    base: str
    estimator: str
    prompts: int  # n
    labels: Mapping[str, int]  # labelled prompts by policy, the base policy's among them
    differences: Mapping[str, Difference]  # to the base, by target
    omitted: Mapping[str, str] = field(default_factory=dict)  # why the other targets have no plan
    alpha: float = 0.05

    @property
    def most_labels(self) -> int:
        """Labelled prompts of the policy with the most of them, m."""
        return max(self.labels.values())

    @property
    def labels_per_prompt(self) -> float:
        """Labels of all planned policies together for each of the m labelled prompts."""
        return sum(self.labels.values()) / self.most_labels

    @property
    def least_m(self) -> int:
        """The smallest m of a plan, with which every policy has enough labels for its weights."""
        return math.ceil(MIN_LABELS * self.most_labels / min(self.labels.values()))

    def labels_at(self, m: int) -> dict[str, int]:
        """Labelled prompts by policy in a plan."""
        return {policy: math.ceil(m * count / self.most_labels - 1e-9) for policy, count in self.labels.items()}

    def document(self) -> dict[str, Any]:
        """As JSON values, which `from_document` reads."""
        return asdict(self)

    @classmethod
    def from_document(cls, content: Mapping[str, Any]) -> Pilot:
        """The pilot of a plan that was written."""
        differences = {
            policy: Difference(Variance(**one["variance"]), one["prompts_df"], one["labels_df"])
            for policy, one in content["differences"].items()
        }
        return cls(**{**content, "differences": differences})


@dataclass(frozen=True)
class Precision:
    """How precise differences are with n prompts and m labelled ones; arrays (T, ...) by difference."""

    half_width: np.ndarray
    detectable: np.ndarray
    low: np.ndarray  # factors of both that the pilot leaves open, at the level .9
    high: np.ndarray

    __repr__ = short_repr


@dataclass(frozen=True)
class Goal:
    """What a study is to reach, for all differences."""

    difference: float | None = None  # detected with this power
    half_width: float | None = None  # of intervals
    power: float = 0.8

    def __post_init__(self) -> None:
        for name, value in (("difference", self.difference), ("half_width", self.half_width)):
            if value is not None and not 0 < value < 1:
                raise UserError(f"{name} must lie in (0, 1), got {value:g}; 0.02 is a difference of two points of 100")
        if not 0.5 <= self.power < 1:
            raise UserError(f"power must lie in [0.5, 1), got {self.power}; 0.8 is common")

    def reached(self, precision: Precision) -> np.ndarray:
        """Whether every difference is as precise as the goal, (...) bool."""
        limits = ((precision.detectable, self.difference), (precision.half_width, self.half_width))
        return np.logical_and.reduce([(values <= limit).all(axis=0) for values, limit in limits if limit is not None])


@dataclass(frozen=True)
class Size:
    """The size of a study."""

    n: int  # prompts with judged responses of all policies
    m: int  # labelled prompts of the policy with the most


def precision(pilot: Pilot, n: Any, m: Any, *, power: float = 0.8, margin: bool = True) -> Precision:
    """The precision with n prompts and m labelled ones, numbers or arrays (...).

    margin: with the allowance for a noisy pilot, as studies are planned; otherwise as the pilot shows it.
    """
    n, m = np.asarray(n, dtype=float), np.asarray(m, dtype=float)
    parts = [_parts(one, pilot, n, m) for one in pilot.differences.values()]
    variance, pilot_df, study_df = (np.stack(part) for part in zip(*parts, strict=True))
    if margin:
        variance = variance * np.maximum(1.0, special.fdtri(study_df, pilot_df, ASSURANCE) / TOLERANCE**2)
    se, alpha = np.sqrt(variance), pilot.alpha
    corrected = special.stdtrit(study_df, 1 - alpha / (2 * len(parts)))
    return Precision(
        special.stdtrit(study_df, 1 - alpha / 2) * se,
        (corrected + special.stdtrit(study_df, power)) * se,
        np.sqrt(pilot_df / special.chdtri(pilot_df, 0.05)),
        np.sqrt(pilot_df / special.chdtri(pilot_df, 0.95)),
    )


def _parts(one: Difference, pilot: Pilot, n: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """V(n, m) of a difference, and its degrees of freedom in the pilot and in a study of this size, (...) each."""
    by_prompts, by_labels = one.variance.sampling / n, one.variance.calibration / m
    variance = by_prompts + by_labels
    pilot_df = variance**2 / (by_prompts**2 / one.prompts_df + by_labels**2 / one.labels_df)
    study_prompts_df = np.maximum(one.prompts_df * n / pilot.prompts, 1.0)
    study_df = variance**2 / (by_prompts**2 / study_prompts_df + by_labels**2 / (STUDY_FOLDS - 1))
    return variance, pilot_df, study_df


def fewest_prompts(pilot: Pilot, goal: Goal, m: np.ndarray) -> np.ndarray:
    """The smallest n of at least m that reaches the goal with m labelled prompts, (k,); 0 where none does."""
    return _smallest(lambda n: goal.reached(precision(pilot, n, m, power=goal.power)), m)


def fewest_labels(pilot: Pilot, goal: Goal, n: int) -> int | None:
    """The smallest m that reaches the goal with n prompts; None where no number of labels does."""
    least = np.array([pilot.least_m])
    fewest = int(_smallest(lambda m: goal.reached(precision(pilot, np.full(1, n), m, power=goal.power)), least)[0])
    return fewest if 0 < fewest <= n else None


def _smallest(reached: Callable[[np.ndarray], np.ndarray], least: np.ndarray) -> np.ndarray:
    """The smallest whole numbers of at least `least` (k,) that reach something, by bisection; 0 where none does."""
    low, high = least - 1, np.maximum(least, MAX_PROMPTS)  # low is too few, high enough if any number is
    possible = reached(high)
    while (high - low > 1).any():
        middle = np.maximum((low + high) // 2, least)
        is_enough = reached(middle)
        high = np.where(is_enough, middle, high)
        low = np.where(is_enough, low, np.minimum(middle, high - 1))
    return np.where(possible, high, 0)


def cost(pilot: Pilot, costs: Costs, size: Size) -> float:
    """The price of a study; costs.label is that of one label."""
    return size.n * costs.judge + sum(pilot.labels_at(size.m).values()) * costs.label


def cheapest(pilot: Pilot, costs: Costs, goal: Goal) -> Size | None:
    """The cheapest size that reaches the goal; None where none up to ten million prompts does."""

    def best(m: np.ndarray) -> int | None:
        n = fewest_prompts(pilot, goal, m)
        price = np.where(n > 0, n * costs.judge + m * pilot.labels_per_prompt * costs.label, np.inf)
        return int(np.argmin(price)) if np.isfinite(price).any() else None

    coarse = _whole_numbers(pilot.least_m, MAX_PROMPTS)
    if (k := best(coarse)) is None:
        return None
    fine = _whole_numbers(coarse[max(k - 1, 0)], coarse[min(k + 1, len(coarse) - 1)])
    m = fine[best(fine)]
    return Size(int(fewest_prompts(pilot, goal, np.array([m]))[0]), int(m))


def best_for_budget(pilot: Pilot, costs: Costs, budget: float, *, power: float = 0.8) -> Size:
    """The size that detects the smallest difference of all that cost at most `budget`.

    Raises a `UserError` where the budget is too small for the fewest labels.
    """
    least = Size(pilot.least_m, pilot.least_m)
    if not (math.isfinite(budget) and cost(pilot, costs, least) <= budget):
        raise UserError(
            f"a budget of {budget:g} does not pay for {least.n} prompts with judged responses and "
            f"{sum(pilot.labels_at(least.m).values())} labels, which cost {cost(pilot, costs, least):g}; raise the budget"
        )

    def prompts(m: np.ndarray) -> np.ndarray:
        labels = sum(np.ceil(m * count / pilot.most_labels - 1e-9) for count in pilot.labels.values())
        n = np.floor((budget - labels * costs.label) / costs.judge * (1 + 1e-12))
        return np.minimum(n, MAX_PROMPTS)

    def best(m: np.ndarray) -> int:
        n = prompts(m)
        widest = precision(pilot, np.maximum(n, m), m, power=power).detectable.max(axis=0)
        return int(np.argmin(np.where(n >= m, widest, np.inf)))

    coarse = _whole_numbers(pilot.least_m, max(pilot.least_m, int(prompts(np.array([pilot.least_m]))[0])))
    k = best(coarse)
    fine = _whole_numbers(coarse[max(k - 1, 0)], coarse[min(k + 1, len(coarse) - 1)])
    m = fine[best(fine)]
    return Size(int(prompts(np.array([m]))[0]), int(m))


def _whole_numbers(low: int, high: int) -> np.ndarray:
    """Whole numbers between two, all of them or as many as are compared at once, in geometric steps; (k,)."""
    return np.unique(np.round(np.geomspace(low, max(high, low), CANDIDATES)).astype(int))
