"""How many prompts to judge and how many of them to label: for a budget, or for an effect that is to be seen.

    V(n, m) = s_e / n + s_c / m,   cost = c_S n + c_Y m <= B,   n >= m >= m_min

s_e is the variance over prompts, s_c that of calibrating on labels; c_S and c_Y are the prices of a judged prompt and of
a label. Without the bounds on m the optimum is

    n* = B sqrt(s_e / c_S) / D,   m* = B sqrt(s_c / c_Y) / D,   D = sqrt(c_S s_e) + sqrt(c_Y s_c),   V* = D^2 / B

m* > n* labels every prompt, m* < m_min labels m_min of them. Two policies of the same standard error, compared without
regard to what they share, differ with a standard error of sqrt(2) SE:

    MDE = (z_(1 - alpha/2) + z_power) sqrt(2) SE,   power = P(Z > z - d) + P(Z < -z - d),   d = effect / (sqrt(2) SE)

where z is z_(1 - alpha/2). Paired estimates often differ by less, so plans err on the dear side. s_e and s_c come from a
pilot: variances at subsamples of several sizes, fitted by non-negative least squares on 1/n and 1/m.

Cochran (1977), "Sampling Techniques", chapter 12 (double sampling); Cohen (1988), "Statistical Power Analysis for the
Behavioral Sciences"; Lawson & Hanson (1974), "Solving Least Squares Problems".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar

import numpy as np
from scipy import optimize, stats

from arena_cje.errors import UserError, nearest
from arena_cje.estimation.calibration import MIN_LABELLED_PROMPTS
from arena_cje.estimation.records import Draws, Logged, Options
from arena_cje.evaluation.evaluate import Evaluation
from arena_cje.evaluation.evaluate import evaluate as evaluate_estimator

MIN_LABELS = 30  # fewer leave the calibration curve itself to chance; the verdict's caution begins below as many
MIN_R_SQUARED = 0.5  # below it the two components explain less than half of how the variance moves over the cells

# Subsamples of a pilot: shares of its prompts with a least number each, and shares of what can be labelled.
SHARES, LEAST = (0.15, 0.30, 0.45, 0.60), (50, 100, 150, 200)
LABEL_SHARES = (0.15, 0.25, 0.40)
MOST_LABELLED = 0.9  # of the smallest subsample: with a label on every row there is no calibration to measure

Binding = Literal["none", "min_labels", "every_prompt_labelled"]
Record = TypeVar("Record", Logged, Draws)
Evaluate = Callable[[str, Logged, Mapping[str, Draws] | None, Options], Evaluation]


@dataclass(frozen=True)
class Costs:
    """Prices, in any one unit: money, seconds."""

    judge: float  # c_S: a prompt with all its responses and their judge scores
    label: float  # c_Y: what labelling a judged prompt adds

    def __post_init__(self) -> None:
        for name, price in (("judge", self.judge), ("label", self.label)):
            if not (price > 0 and math.isfinite(price)):
                raise UserError(
                    f"the cost `{name}` must be a number above 0, got {price}; what costs no money takes time, so give "
                    "both in seconds, or a small price"
                )

    def total(self, n: int, m: int) -> float:
        return n * self.judge + m * self.label


@dataclass(frozen=True)
class Variance:
    """Components of V(n, m), times their sample size."""

    sampling: float  # s_e, over prompts
    calibration: float  # s_c, over labels

    def __post_init__(self) -> None:
        for name, part in (("sampling", self.sampling), ("calibration", self.calibration)):
            if not (part >= 0 and math.isfinite(part)):
                raise UserError(f"the variance component `{name}` must be a number of at least 0, got {part}")
        if self.sampling == 0 and self.calibration == 0:
            raise UserError(
                "both variance components are 0, which leaves nothing to plan; measure them on a pilot whose judge "
                "scores and labels vary"
            )

    def at(self, n: float, m: float) -> float:
        return self.sampling / n + self.calibration / m


@dataclass(frozen=True)
class Plan:
    """What to buy, what it costs and what it will show."""

    n: int  # prompts judged
    m: int  # of them labelled
    cost: float
    variance: float  # of a policy's value
    alpha: float
    power: float
    binding: Binding  # which bound keeps the plan off the free optimum

    @property
    def se(self) -> float:
        return math.sqrt(self.variance)

    @property
    def mde(self) -> float:
        """Least difference between two policies that is found with the power asked for."""
        return mde(self.se, alpha=self.alpha, power=self.power)


def mde(se: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Minimum detectable effect between two policies with this standard error each."""
    return _reach(alpha, power) * se


def power(effect: float, se: float, *, alpha: float = 0.05) -> float:
    """Chance that a two-tailed test finds this difference between two policies with this standard error each."""
    if not se > 0:
        raise ValueError(f"se must be above 0, got {se}")
    distance, z = effect / (math.sqrt(2) * se), stats.norm.isf(alpha / 2)
    return float(stats.norm.sf(z - distance) + stats.norm.cdf(-z - distance))


def _reach(alpha: float, power: float) -> float:
    """Minimum detectable effect, in standard errors of one policy."""
    if not 0 < alpha < power < 1:
        raise UserError(f"alpha and power must satisfy 0 < alpha < power < 1, got alpha {alpha} and power {power}")
    return float((stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) * math.sqrt(2))


def allocate(
    variance: Variance,
    costs: Costs,
    budget: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    min_labels: int = MIN_LABELS,
) -> Plan:
    """The least variance that a budget buys; whole numbers, never dearer than the budget."""
    _check_min_labels(min_labels)
    least = costs.total(min_labels, min_labels)
    if not (budget >= least and math.isfinite(budget)):
        raise UserError(
            f"a budget of {budget:g} does not reach {min_labels} judged and labelled prompts, which cost {least:g}; "
            "raise the budget or lower min_labels"
        )
    # As many pairs of judge score and label as the budget buys.
    pairs = _most(lambda k: costs.total(k, k) <= budget, budget / (costs.judge + costs.label))
    binding, m = _binding(variance, costs, budget / _root(variance, costs), min_labels)
    if binding == "every_prompt_labelled":
        return _plan(variance, costs, pairs, pairs, binding, alpha, power)
    m = min(math.floor(m), pairs)
    # What rounding the labels down leaves is spent on prompts.
    n = _most(lambda k: costs.total(k, m) <= budget, (budget - costs.label * m) / costs.judge)
    return _plan(variance, costs, n, m, binding, alpha, power)


def for_effect(
    variance: Variance,
    costs: Costs,
    effect: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    min_labels: int = MIN_LABELS,
) -> Plan:
    """The cheapest plan that finds this difference between two policies with this power."""
    _check_min_labels(min_labels)
    if not (effect > 0 and math.isfinite(effect)):
        raise UserError(f"effect must be a number above 0, in units of the policy value, got {effect}")
    needed = (effect / _reach(alpha, power)) ** 2  # V
    binding, m = _binding(variance, costs, _root(variance, costs) / needed, min_labels)
    if binding == "every_prompt_labelled":
        n = m = max((variance.sampling + variance.calibration) / needed, min_labels)
    else:
        # Above 0: s_c / m* = V sqrt(c_Y s_c) / D, which leaves the prompts their share of V, and m >= m*.
        n = max(variance.sampling / (needed - variance.calibration / m), m)
    return _plan(variance, costs, math.ceil(n), math.ceil(m), binding, alpha, power)


def _root(variance: Variance, costs: Costs) -> float:
    """D; then D^2 = B V."""
    return math.sqrt(costs.judge * variance.sampling) + math.sqrt(costs.label * variance.calibration)


def _binding(variance: Variance, costs: Costs, scale: float, min_labels: int) -> tuple[Binding, float]:
    """Which bound holds at the optimum, and its number of labels where not all prompts have one.

    The scale is B / D, or D / V where the variance is given.
    """
    # m* > n*, without the quotients that a component of zero would spoil.
    if variance.calibration * costs.judge > variance.sampling * costs.label:
        return "every_prompt_labelled", math.nan
    m = scale * math.sqrt(variance.calibration / costs.label)
    return ("min_labels", min_labels) if m < min_labels else ("none", m)


def _plan(variance: Variance, costs: Costs, n: int, m: int, binding: Binding, alpha: float, power: float) -> Plan:
    _reach(alpha, power)  # refuses levels that are none
    return Plan(n, m, costs.total(n, m), variance.at(n, m), alpha, power, binding)


def _check_min_labels(min_labels: int) -> None:
    if min_labels < 1:
        raise UserError(f"min_labels must be at least 1, got {min_labels}")


def _most(fits: Callable[[int], bool], quotient: float) -> int:
    """The largest whole number that fits; rounding of floats may put it one off the quotient's floor."""
    whole = math.floor(quotient)
    return next(k for k in (whole + 1, whole, whole - 1) if fits(k))


@dataclass(frozen=True)
class Fit:
    """Components fitted to observed variances, and how well they explain them."""

    variance: Variance
    r_squared: float  # 1 - residual sum of squares over that around the mean; NaN where all variances are equal
    n: np.ndarray  # (c,) prompts of each cell
    m: np.ndarray  # (c,) labelled ones among them
    observed: np.ndarray  # (c,) variance

    @property
    def warning(self) -> str | None:
        """A sentence where the components explain too little to plan by."""
        if self.r_squared >= MIN_R_SQUARED:
            return None
        return (
            f"s_e/n + s_c/m explains too little of the pilot's variances (R^2 {self.r_squared:.2f}, wanted at least "
            f"{MIN_R_SQUARED}); use more replicates or a larger pilot before relying on the plan"
        )


def fit(variances: Sequence[float], n: Sequence[int], m: Sequence[int]) -> Fit:
    """Fit s_e and s_c to variances observed at actual numbers of prompts n and of labelled prompts m, (c,) each."""
    observed, prompts, labels = (np.asarray(values, dtype=float) for values in (variances, n, m))
    if not len(observed) == len(prompts) == len(labels):
        raise ValueError(
            f"variances, n and m must be equally long, got {len(observed)}, {len(prompts)} and {len(labels)}"
        )
    if not (np.isfinite(observed).all() and (observed >= 0).all() and (labels > 0).all() and (prompts >= labels).all()):
        raise UserError(
            "every cell of a pilot needs a finite variance of at least 0 and n >= m > 0; "
            f"got variances {observed}, n {prompts}, m {labels}"
        )
    # In units of order one, as the solver's tolerance is absolute.
    unit, size = observed.mean() if observed.any() else 1.0, prompts.mean() if len(prompts) else 1.0
    design = size / np.column_stack([prompts, labels])
    if np.linalg.matrix_rank(design) < 2:
        raise UserError(
            "the cells of a pilot must differ in the share of labelled prompts, or sampling and calibration cannot be "
            f"told apart; got n {prompts}, m {labels}"
        )
    parts, _ = optimize.nnls(design, observed / unit)
    around = np.sum((observed / unit - np.mean(observed / unit)) ** 2)
    left = np.sum((observed / unit - design @ parts) ** 2)
    sampling, calibration = (float(part) for part in parts * unit * size)
    r_squared = float(1 - left / around) if around > 0 else math.nan
    return Fit(Variance(sampling, calibration), r_squared, prompts.astype(int), labels.astype(int), observed)


def grid(prompts: int, labels: int) -> list[tuple[int, int]]:
    """Sizes (n, m) of a pilot's subsamples; m < n in each, whatever the pilot has."""
    sizes = sorted(
        {min(max(round(share * prompts), least), prompts) for share, least in zip(SHARES, LEAST, strict=True)}
    )
    if len(sizes) < 2:
        raise UserError(f"a pilot needs more than {LEAST[0]} prompts, got {prompts}; judge more of them")
    most = math.floor(MOST_LABELLED * sizes[0])
    slices = sorted({min(round(share * min(sizes[-1], labels)), most) for share in LABEL_SHARES})
    if slices[0] < MIN_LABELLED_PROMPTS:
        wanted = math.ceil(MIN_LABELLED_PROMPTS / LABEL_SHARES[0])
        raise UserError(
            f"a pilot needs labels on at least {wanted} prompts, got {labels}; its smallest subsample has "
            f"{LABEL_SHARES[0]:.0%} of them, and calibration asks for {MIN_LABELLED_PROMPTS}"
        )
    return [(n, m) for n in sizes for m in slices]


def pilot(
    logged: Logged,
    draws: Mapping[str, Draws] | None,
    estimator: str,
    policy: str,
    options: Options,
    *,
    replicates: int = 50,
    evaluate: Evaluate = evaluate_estimator,
) -> Fit:
    """Measure the components of one policy's variance: analytic variances of random subsamples, averaged by size.

    A prompt comes with all its rows and fresh draws; one that is not labelled in a subsample has lost all its labels.
    Bootstrap standard errors are too wide at these sizes, so those of the influence function and the jackknife are used.
    """
    if policy not in logged.policies:
        known = ", ".join(logged.policies)
        raise UserError(f"unknown policy {policy!r}{nearest(policy, logged.policies)}; the pilot has {known}")
    if replicates < 1:
        raise UserError(f"replicates must be at least 1, got {replicates}")
    logged, draws = _only(logged, draws, policy)
    options = replace(options, inference="jackknife")
    labelled = _has_label(logged, draws)
    names, code = np.unique(logged.prompt_id, return_inverse=True)
    with_label = np.bincount(code, weights=labelled, minlength=len(names)) > 0  # (G,)
    cells = []
    for n, m in grid(len(names), int(with_label.sum())):
        found = []
        for replicate in range(replicates):
            rng = np.random.default_rng((options.seed, n, m, replicate))
            kept, keeps_label = subsample(with_label, n, m, rng)
            some, fresh = _rows(logged, draws, np.flatnonzero(kept[code]), keeps_label[code])
            se = evaluate(estimator, some, fresh, options).estimates[policy].se
            found.append((se**2, *_counted(some, fresh)))
        cells.append(np.mean(found, axis=0))
    variances, n_actual, m_actual = np.array(cells).T
    return fit(variances, n_actual, m_actual)


def subsample(with_label: np.ndarray, n: int, m: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Prompts kept (G,) and those that keep their labels (G,), bool: m at random of the labelled, n - m of all others."""
    labelled = rng.choice(np.flatnonzero(with_label), m, replace=False)
    others = np.setdiff1d(np.arange(len(with_label)), labelled)
    kept, keeps_label = np.zeros((2, len(with_label)), dtype=bool)
    keeps_label[labelled] = True
    kept[labelled] = True
    kept[rng.choice(others, n - m, replace=False)] = True
    return kept, keeps_label


def _only(logged: Logged, draws: Mapping[str, Draws] | None, policy: str) -> tuple[Logged, dict[str, Draws]]:
    """One target policy: the others would be evaluated for nothing."""
    column = logged.log_ratio[:, [logged.policies.index(policy)]]
    mine = {policy: draws[policy]} if draws and policy in draws else {}
    return replace(logged, policies=(policy,), log_ratio=column), mine


def _rows(
    logged: Logged, draws: Mapping[str, Draws], rows: np.ndarray, keeps_label: np.ndarray
) -> tuple[Logged, dict[str, Draws]]:
    """The rows at these positions (u,), with the labels of those among all (n,) that keep them."""
    return _taken(logged, rows, keeps_label), {
        p: _taken(of_policy, rows, keeps_label) for p, of_policy in draws.items()
    }


def _taken(record: Record, rows: np.ndarray, keeps_label: np.ndarray) -> Record:
    arrays = {field.name: getattr(record, field.name) for field in fields(record)}
    taken = {name: values[rows] for name, values in arrays.items() if isinstance(values, np.ndarray)}
    taken["oracle_label"][~keeps_label[rows]] = np.nan  # a copy, as rows are positions
    return replace(record, **taken)


def _has_label(logged: Logged, draws: Mapping[str, Draws]) -> np.ndarray:
    """Rows (n,) with a label, of the logged response or of a fresh draw."""
    own = [(~np.isnan(of_policy.oracle_label)).any(axis=1) for of_policy in draws.values()]
    return np.logical_or.reduce([logged.labelled, *own])


def _counted(logged: Logged, draws: Mapping[str, Draws]) -> tuple[int, int]:
    """Prompts, and labelled ones, that a subsample really has."""
    return len(np.unique(logged.prompt_id)), len(np.unique(logged.prompt_id[_has_label(logged, draws)]))
