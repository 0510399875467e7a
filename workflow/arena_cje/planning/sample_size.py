"""The numbers of prompts to judge and to label, for a budget or for the power to detect an effect.

    V(n, m) = s_e / n + s_c / m,   cost = c_S n + c_Y m <= B,   n >= m >= m_min

s_e is the variance over prompts, s_c that of the calibration; c_S and c_Y are the prices of a judged prompt and of a label.
Without the bounds on m the optimum is

    n* = B sqrt(s_e / c_S) / D,   m* = B sqrt(s_c / c_Y) / D,   D = sqrt(c_S s_e) + sqrt(c_Y s_c),   V* = D^2 / B

If m* > n*, every prompt is labelled; if m* < m_min, m_min of them are. For two policies with equal standard errors SE, the
standard error of their difference as independent estimates is sqrt(2) SE:

    MDE = (z_(1 - alpha/2) + z_power) sqrt(2) SE,   power = P(Z > z - d) + P(Z < -z - d),   d = effect / (sqrt(2) SE)

where z is z_(1 - alpha/2). The standard error of a paired difference is often smaller, so that plans are conservative. s_e
and s_c are estimated from a pilot: the variances of subsamples of several sizes are fitted by non-negative least squares
on 1/n and 1/m.

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

from arena_cje.errors import UserError, did_you_mean
from arena_cje.estimation.calibration import MIN_LABELLED_PROMPTS
from arena_cje.estimation.records import Draws, Logged, Options
from arena_cje.estimation.short_repr import short_repr
from arena_cje.evaluation.evaluate import Evaluation
from arena_cje.evaluation.evaluate import evaluate as evaluate_estimator

MIN_LABELS = 30  # below it the calibration curve is too uncertain; the verdict cautions below the same number
MIN_R_SQUARED = 0.5  # below it the components explain less than half of the variation over the cells

# Subsamples of a pilot: shares of its prompts, least numbers of prompts, and shares of the prompts that are labelled.
SHARES, MIN_PROMPTS = (0.15, 0.30, 0.45, 0.60), (50, 100, 150, 200)
LABEL_SHARES = (0.15, 0.25, 0.40)
MAX_LABELLED = 0.9  # of the smallest subsample: with a label on every row the calibrator has no variance

Binding = Literal["none", "min_labels", "every_prompt_labelled"]
Record = TypeVar("Record", Logged, Draws)
Evaluate = Callable[[str, Logged, Mapping[str, Draws] | None, Options], Evaluation]


@dataclass(frozen=True)
class Costs:
    """Prices of a prompt, in one unit of money or time."""

    judge: float  # c_S: a prompt with all its responses and their judge scores
    label: float  # c_Y: a label on a judged prompt

    def __post_init__(self) -> None:
        for name, price in (("judge", self.judge), ("label", self.label)):
            if not (price > 0 and math.isfinite(price)):
                raise UserError(
                    f"the cost `{name}` must be a number above 0, got {price}; if it costs no money, give both costs in "
                    "seconds, or a small price"
                )

    def total(self, n: int, m: int) -> float:
        """Cost of n judged prompts, m of them labelled."""
        return n * self.judge + m * self.label


@dataclass(frozen=True)
class Variance:
    """The components s_e and s_c of V(n, m)."""

    sampling: float  # s_e, over prompts
    calibration: float  # s_c, over labels

    def __post_init__(self) -> None:
        for name, value in (("sampling", self.sampling), ("calibration", self.calibration)):
            if not (value >= 0 and math.isfinite(value)):
                raise UserError(f"the variance component `{name}` must be a number of at least 0, got {value}")
        if self.sampling == 0 and self.calibration == 0:
            raise UserError(
                "both variance components are 0, so every size would be enough; measure them on a pilot whose judge scores "
                "and labels vary"
            )

    def at(self, n: float, m: float) -> float:
        """V(n, m), the variance with n judged and m labelled prompts."""
        return self.sampling / n + self.calibration / m


@dataclass(frozen=True)
class Plan:
    """The sizes of a study, with its cost and precision."""

    n: int  # judged prompts
    m: int  # labelled prompts among them
    cost: float
    variance: float  # of a policy's value
    alpha: float
    power: float
    binding: Binding  # the bound on m that holds with equality

    @property
    def se(self) -> float:
        """Standard error of a policy's value."""
        return math.sqrt(self.variance)

    @property
    def mde(self) -> float:
        """Minimum detectable effect: the smallest difference of two policies that has this power."""
        return mde(self.se, alpha=self.alpha, power=self.power)


def mde(se: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Minimum detectable effect of two policies with standard error `se` each.

    Raises a `UserError` unless 0 < alpha < power < 1.
    """
    return _relative_mde(alpha, power) * se


def power(effect: float, se: float, *, alpha: float = 0.05) -> float:
    """Power of a two-tailed test for a difference `effect` of two policies with standard error `se` each."""
    if not se > 0:
        raise ValueError(f"se must be above 0, got {se}")
    distance, z = effect / (math.sqrt(2) * se), stats.norm.isf(alpha / 2)
    return float(stats.norm.sf(z - distance) + stats.norm.cdf(-z - distance))


def _relative_mde(alpha: float, power: float) -> float:
    """Minimum detectable effect in standard errors of one policy; checks alpha and power."""
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
    """The plan with the least variance among those that cost at most `budget`.

    Raises a `UserError` where the budget is too small for `min_labels` labelled prompts.
    """
    _check_min_labels(min_labels)
    least = costs.total(min_labels, min_labels)
    if not (budget >= least and math.isfinite(budget)):
        raise UserError(
            f"a budget of {budget:g} does not reach {min_labels} judged and labelled prompts, which cost {least:g}; "
            "raise the budget or lower min_labels"
        )
    # The largest number of prompts that the budget judges and labels.
    pairs = _largest(lambda k: costs.total(k, k) <= budget, budget / (costs.judge + costs.label))
    binding, m = _optimal_labels(variance, costs, budget / _root_cost(variance, costs), min_labels)
    if binding == "every_prompt_labelled":
        return _plan(variance, costs, pairs, pairs, binding, alpha, power)
    m = min(math.floor(m), pairs)
    # The money that is left when m is rounded down is spent on prompts.
    n = _largest(lambda k: costs.total(k, m) <= budget, (budget - costs.label * m) / costs.judge)
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
    """The cheapest plan that detects a difference `effect` of two policies with this power.

    Raises a `UserError` for an effect that is not above 0.
    """
    _check_min_labels(min_labels)
    if not (effect > 0 and math.isfinite(effect)):
        raise UserError(f"effect must be a number above 0, in units of the policy value, got {effect}")
    target = (effect / _relative_mde(alpha, power)) ** 2  # V
    binding, m = _optimal_labels(variance, costs, _root_cost(variance, costs) / target, min_labels)
    if binding == "every_prompt_labelled":
        n = m = max((variance.sampling + variance.calibration) / target, min_labels)
    else:
        # The denominator is above 0: s_c / m* = V sqrt(c_Y s_c) / D < V, and m >= m*.
        n = max(variance.sampling / (target - variance.calibration / m), m)
    return _plan(variance, costs, math.ceil(n), math.ceil(m), binding, alpha, power)


def _root_cost(variance: Variance, costs: Costs) -> float:
    """sqrt(c_S s_e) + sqrt(c_Y s_c), the D of the module's formulas: its square is budget times variance at the optimum."""
    return math.sqrt(costs.judge * variance.sampling) + math.sqrt(costs.label * variance.calibration)


def _optimal_labels(variance: Variance, costs: Costs, scale: float, min_labels: int) -> tuple[Binding, float]:
    """The bound on m that holds with equality at the optimum, and m; NaN where every prompt is labelled.

    scale: B / D for a budget, D / V for a variance.
    """
    # m* > n*, without quotients, as a component may be zero.
    if variance.calibration * costs.judge > variance.sampling * costs.label:
        return "every_prompt_labelled", math.nan
    m = scale * math.sqrt(variance.calibration / costs.label)
    return ("min_labels", min_labels) if m < min_labels else ("none", m)


def _plan(variance: Variance, costs: Costs, n: int, m: int, binding: Binding, alpha: float, power: float) -> Plan:
    _relative_mde(alpha, power)  # checks the levels
    return Plan(n, m, costs.total(n, m), variance.at(n, m), alpha, power, binding)


def _check_min_labels(min_labels: int) -> None:
    if min_labels < 1:
        raise UserError(f"min_labels must be at least 1, got {min_labels}")


def _largest(fits: Callable[[int], bool], quotient: float) -> int:
    """The largest whole number that fits; the rounding of floats may move it by one from the floor of the quotient."""
    floor = math.floor(quotient)
    return next(k for k in (floor + 1, floor, floor - 1) if fits(k))


@dataclass(frozen=True)
class Fit:
    """Components fitted to observed variances, and the quality of the fit."""

    variance: Variance
    r_squared: float  # 1 - residual over total sum of squares; NaN where all variances are equal
    n: np.ndarray  # (c,) number of prompts of each cell
    m: np.ndarray  # (c,) number of labelled prompts of each cell
    observed: np.ndarray  # (c,) variance of each cell

    __repr__ = short_repr

    @property
    def warning(self) -> str | None:
        """A sentence where the components explain too little of the variances for a plan; else None."""
        if self.r_squared >= MIN_R_SQUARED:
            return None
        return (
            f"s_e/n + s_c/m explains too little of the pilot's variances (R^2 {self.r_squared:.2f}, expected at least "
            f"{MIN_R_SQUARED}); use more replicates or a larger pilot before relying on the plan"
        )


def fit(variances: Sequence[float], n: Sequence[int], m: Sequence[int]) -> Fit:
    """Fit s_e and s_c to the variances of c cells with n prompts and m labelled prompts, (c,) each.

    Raises a `UserError` for impossible cells, and for cells in which n and m do not vary separately.
    """
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
    # Scaled to order one, since the solver's tolerance is absolute.
    unit, size = observed.mean() if observed.any() else 1.0, prompts.mean() if len(prompts) else 1.0
    design = size / np.column_stack([prompts, labels])
    if np.linalg.matrix_rank(design) < 2:
        raise UserError(
            "the cells of a pilot must differ in the share of labelled prompts, or sampling and calibration cannot be "
            f"told apart; got n {prompts}, m {labels}"
        )
    parts, _ = optimize.nnls(design, observed / unit)
    total = np.sum((observed / unit - np.mean(observed / unit)) ** 2)
    residual = np.sum((observed / unit - design @ parts) ** 2)
    sampling, calibration = (float(part) for part in parts * unit * size)
    r_squared = float(1 - residual / total) if total > 0 else math.nan
    return Fit(Variance(sampling, calibration), r_squared, prompts.astype(int), labels.astype(int), observed)


def grid(prompts: int, labels: int) -> list[tuple[int, int]]:
    """Sizes (n, m) of the subsamples of a pilot with this many prompts and labelled prompts; m < n in each.

    Raises a `UserError` for a pilot that is too small.
    """
    sizes = sorted(
        {min(max(round(share * prompts), least), prompts) for share, least in zip(SHARES, MIN_PROMPTS, strict=True)}
    )
    if len(sizes) < 2:
        raise UserError(f"a pilot needs more than {MIN_PROMPTS[0]} prompts, got {prompts}; judge more of them")
    most = math.floor(MAX_LABELLED * sizes[0])
    label_sizes = sorted({min(round(share * min(sizes[-1], labels)), most) for share in LABEL_SHARES})
    if label_sizes[0] < MIN_LABELLED_PROMPTS:
        least = math.ceil(MIN_LABELLED_PROMPTS / LABEL_SHARES[0])
        raise UserError(
            f"a pilot needs labels on at least {least} prompts, got {labels}; its smallest subsample has "
            f"{LABEL_SHARES[0]:.0%} of them, and calibration needs {MIN_LABELLED_PROMPTS}"
        )
    return [(n, m) for n in sizes for m in label_sizes]


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
    """Estimate the components of one policy's variance from the mean variances of random subsamples of each size.

    A subsample has all rows and fresh draws of its prompts; a prompt that is not among its labelled ones has no label.
    The variances are those of influence function and jackknife, as bootstrap standard errors are too wide at these sizes.
    Raises a `UserError` for an unknown policy, and for a pilot that is too small.
    """
    if policy not in logged.policies:
        names = ", ".join(logged.policies)
        raise UserError(f"unknown policy {policy!r}{did_you_mean(policy, logged.policies)}; the pilot has {names}")
    if replicates < 1:
        raise UserError(f"replicates must be at least 1, got {replicates}")
    logged, draws = _select_policy(logged, draws, policy)
    options = replace(options, inference="jackknife")
    names, code = np.unique(logged.prompt_id, return_inverse=True)
    has_label = np.bincount(code, weights=_has_label(logged, draws), minlength=len(names)) > 0  # (G,)
    cells = []
    for n, m in grid(len(names), int(has_label.sum())):
        sizes_and_variances = []
        for replicate in range(replicates):
            rng = np.random.default_rng((options.seed, n, m, replicate))
            in_subsample, labelled = subsample(has_label, n, m, rng)
            rows = np.flatnonzero(in_subsample[code])
            part = _take(logged, rows, labelled[code])
            part_draws = {name: _take(record, rows, labelled[code]) for name, record in draws.items()}
            se = evaluate(estimator, part, part_draws, options).estimates[policy].se
            n_labelled = len(np.unique(part.prompt_id[_has_label(part, part_draws)]))
            sizes_and_variances.append((se**2, len(np.unique(part.prompt_id)), n_labelled))
        cells.append(np.mean(sizes_and_variances, axis=0))
    variances, n_actual, m_actual = np.array(cells).T
    return fit(variances, n_actual, m_actual)


def subsample(has_label: np.ndarray, n: int, m: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random subsample of G prompts: m of those with a label (G,) bool, and n - m of all others.

    Returns two masks (G,) bool: the prompts of the subsample, and the m labelled ones among them.
    """
    chosen = rng.choice(np.flatnonzero(has_label), m, replace=False)
    others = np.setdiff1d(np.arange(len(has_label)), chosen)
    in_subsample, labelled = np.zeros((2, len(has_label)), dtype=bool)
    labelled[chosen] = True
    in_subsample[chosen] = True
    in_subsample[rng.choice(others, n - m, replace=False)] = True
    return in_subsample, labelled


def _select_policy(logged: Logged, draws: Mapping[str, Draws] | None, policy: str) -> tuple[Logged, dict[str, Draws]]:
    """The data of one target policy alone, so that no other is evaluated."""
    column = logged.log_ratio[:, [logged.policies.index(policy)]]
    policy_draws = {policy: draws[policy]} if draws and policy in draws else {}
    return replace(logged, policies=(policy,), log_ratio=column), policy_draws


def _take(record: Record, rows: np.ndarray, labelled: np.ndarray) -> Record:
    """The rows at the positions (u,), without the labels of rows that are False in `labelled`, (n,) bool."""
    arrays = {field.name: getattr(record, field.name) for field in fields(record)}
    part = {name: values[rows] for name, values in arrays.items() if isinstance(values, np.ndarray)}
    part["oracle_label"][~labelled[rows]] = np.nan  # indexing by positions has made a copy
    return replace(record, **part)


def _has_label(logged: Logged, draws: Mapping[str, Draws]) -> np.ndarray:
    """Rows (n,) bool with a label on the logged response or on a fresh draw."""
    draw_labels = [(~np.isnan(record.oracle_label)).any(axis=1) for record in draws.values()]
    return np.logical_or.reduce([logged.labelled, *draw_labels])
