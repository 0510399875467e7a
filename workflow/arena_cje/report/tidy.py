"""The data of figures as tables with one row per mark; numbers are from the results or counted from the data.

A refused policy has no estimate and no interval in any table, so that no figure can show one. A missing number is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.diagnostics.overlap import describe
from arena_cje.errors import UserError
from arena_cje.estimation import calibration
from arena_cje.estimation.isotonic import Monotone
from arena_cje.estimation.weights import hajek
from arena_cje.report.reliability import Group, reliability
from arena_cje.report.weight_bins import weight_bins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from arena_cje.estimation.records import Draws, Labelled, Logged
    from arena_cje.results.record import ResultRecord

MAX_DISTINCT = 20  # up to this many distinct judge scores have a bar each, more are a histogram
SCORE_BARS = 25
CELLS, SPARSE = 10, 3  # cells of the score range; a cell with fewer labels is sparse
CURVE = 101  # points of the line of a calibrator with covariates


def estimates(results: Sequence[ResultRecord], truth: Mapping[str, float] | None = None) -> pd.DataFrame:
    """One row per estimator and policy, the base policy first: level, estimate, ci_lower, ci_upper, truth."""
    import pandas as pd

    rows = [
        {"estimator": result.name, "policy": policy, "level": result.verdicts[policy].level}
        | _published(result, policy)
        | {"truth": (truth or {}).get(policy, math.nan)}
        for result in results
        for policy in result.all_policies
    ]
    columns = ["estimator", "policy", "level", "estimate", "ci_lower", "ci_upper", "truth"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))


def over_coverages(
    results: Mapping[str, Sequence[ResultRecord]], truth: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """`estimates` at every coverage, with a column `coverage`."""
    import pandas as pd

    return pd.concat(
        [estimates(coverage_results, truth).assign(coverage=coverage) for coverage, coverage_results in results.items()]
    )


def _published(result: ResultRecord, policy: str) -> dict[str, float]:
    """Estimate and interval of a policy; NaN if it is refused."""
    names = ("estimate", "ci_lower", "ci_upper")
    if policy in result.refused:
        return dict.fromkeys(names, math.nan)
    summary = result.summary(policy)
    return {name: summary[name] for name in names}


@dataclass(frozen=True)
class WeightPanel:
    """Statistics of the mean-one raw weights of one policy, for the title of its panel."""

    policy: str
    n: int  # rows that have a weight
    n_unscored: int
    impossible: int  # rows outside the target's support
    ess_share: float  # NaN where there is no weight, like the largest
    max_weight: float
    n_above_100: int
    n_below_0_01: int  # zeros among them
    n_zero: int
    n_equal: int  # rows with the same log probability under the target and the base
    all_one: bool


def weights(logged: Logged) -> tuple[pd.DataFrame, list[WeightPanel]]:
    """Bars (policy, left, right, share of its rows) over log10 of the raw weights, and statistics of each policy."""
    import pandas as pd

    raw = {policy: _raw_weights(logged.log_ratio[:, k]) for k, policy in enumerate(logged.policies)}
    with np.errstate(divide="ignore"):
        bins = weight_bins([np.log(weight) for weight in raw.values()])
    rows = [
        (policy, low, high, n / len(weight))
        for (policy, weight), of_policy in zip(raw.items(), bins, strict=True)
        for low, high, n in of_policy
    ]
    panels = [_weight_panel(policy, raw[policy], logged.log_ratio[:, k]) for k, policy in enumerate(logged.policies)]
    return pd.DataFrame(rows, columns=["policy", "left", "right", "share"]), panels


def _raw_weights(log_ratio: np.ndarray) -> np.ndarray:
    """Mean-one weights of the scored rows; empty if all are outside the target's support."""
    scored = log_ratio[~np.isnan(log_ratio)]
    return hajek(scored) if len(scored) and scored.max() > -np.inf else np.empty(0)


def _weight_panel(policy: str, weight: np.ndarray, log_ratio: np.ndarray) -> WeightPanel:
    """Statistics of a policy from its mean-one weights and the log ratios (n,) of all rows."""
    statistics = describe(weight)
    return WeightPanel(
        policy,
        statistics.n,
        int(np.isnan(log_ratio).sum()),
        int((log_ratio == -np.inf).sum()),
        statistics.ess_share,
        statistics.max_weight,
        statistics.n_above_100,
        statistics.n_below_0_01,
        statistics.n_zero,
        int((log_ratio == 0).sum()),
        bool(len(weight)) and bool((weight == 1).all()),
    )


@dataclass(frozen=True)
class CalibrationTable:
    """The oracle slice and the calibrator that was fitted to it."""

    mode: str  # monotone, two_stage, none
    points: pd.DataFrame  # score, label: the labelled responses
    curve: pd.DataFrame  # score, reward
    folds: pd.DataFrame  # score, reward, fold: the calibrator fitted without that fold
    bins: pd.DataFrame  # score, label, low, high, n: means of responses of similar score, with an interval
    sparse: pd.DataFrame  # low, high: score ranges with responses and few labels
    logged_score: np.ndarray  # (n,) of all logged responses
    all_labelled: bool


def calibration_of(result: ResultRecord, logged: Logged, calibration_data: Labelled | None = None) -> CalibrationTable:
    """The calibrator of a result on the data of that result; the calibrators of the folds are fitted again.

    calibration_data: labelled responses for the calibrator alone.
    """
    import pandas as pd

    fitted = calibration.fit(logged, result.options, calibration_data)
    record, score, label = result.document["calibration"], fitted.score, fitted.label
    if len(label) != record["n_labels"]:
        raise UserError(
            f"{result.name}: the data has {len(label)} labelled responses, the result was made from {record['n_labels']}; "
            "give the data set of the same coverage"
        )
    curve = pd.DataFrame({"score": record["knots"], "reward": record["values"]}, dtype=float)
    lines = (
        [] if fitted.mode == "none" else [_calibrator_line(calibrator, fitted) for calibrator in fitted.cross_fitted]
    )
    folds = [part.assign(fold=k) for k, part in enumerate(lines)]
    all_scores = np.concatenate([logged.judge_score, score])
    return CalibrationTable(
        fitted.mode,
        pd.DataFrame({"score": score, "label": label}),
        curve,
        pd.concat(folds) if folds else pd.DataFrame(columns=["score", "reward", "fold"], dtype=float),
        pd.DataFrame(reliability(score, label), columns=list(Group._fields)),
        sparse_ranges(all_scores, score),
        logged.judge_score,
        bool(logged.labelled.all()),
    )


def _calibrator_line(calibrator: calibration.Calibrator, fitted: calibration.Calibration) -> pd.DataFrame:
    """A calibrator as a line; covariates are fixed at their median over the labelled responses."""
    import pandas as pd

    if isinstance(calibrator, Monotone):
        return pd.DataFrame({"score": calibrator.knots, "reward": calibrator.values})
    at = np.linspace(fitted.score.min(), fitted.score.max(), CURVE)
    typical = np.median(fitted.slice.judged.covariates, axis=0)  # (c,)
    return pd.DataFrame({"score": at, "reward": calibrator(at, np.broadcast_to(typical, (CURVE, len(typical))))})


def sparse_ranges(score: np.ndarray, labelled: np.ndarray) -> pd.DataFrame:
    """Ranges (low, high) of judge scores that hold responses and fewer than three labels; neighbours are one range."""
    import pandas as pd

    edges = np.histogram_bin_edges(score, CELLS)
    sparse = (np.histogram(score, edges)[0] > 0) & (np.histogram(labelled, edges)[0] < SPARSE)
    ranges: list[tuple[float, float]] = []
    for low, high in zip(edges[:-1][sparse].tolist(), edges[1:][sparse].tolist(), strict=True):
        if ranges and ranges[-1][1] == low:
            ranges[-1] = (ranges[-1][0], high)
        else:
            ranges.append((low, high))
    return pd.DataFrame(ranges, columns=["low", "high"], dtype=float)


def differences(result: ResultRecord) -> pd.DataFrame:
    """Every ordered pair: row, column, kind (same, refused, unknown, known), difference row minus column, apart, judge_only."""
    import pandas as pd

    names = result.all_policies
    pairs = {}
    for pair in result.comparisons().iter_rows(named=True):
        first, second, value = pair["first"], pair["second"], pair["difference"]
        flags = (bool(pair["apart"]), bool(pair["judge_only"]))
        pairs[first, second] = (value, *flags)
        pairs[second, first] = (None if value is None else -value, *flags)
    rows = []
    for row in names:
        for column in names:
            value, *flags = pairs.get((row, column), (None, False, False))
            kind = "known" if value is not None else "unknown"
            kind = "refused" if {row, column} & set(result.refused) else kind
            rows.append((row, column, "same" if row == column and kind != "refused" else kind, value, *flags))
    table = pd.DataFrame(rows, columns=["row", "column", "kind", "difference", "apart", "judge_only"])
    return table.astype({"difference": float})


@dataclass(frozen=True)
class Scores:
    """Judge scores by policy: the base policy's logged responses, then each target's fresh draws."""

    bars: pd.DataFrame  # policy, left, right, share
    means: dict[str, float]  # mean judge scores, which are not policy values
    n: dict[str, int]  # responses with a score
    n_missing: dict[str, int]
    discrete: bool  # each distinct score has a bar


def judge_scores(logged: Logged, draws: Mapping[str, Draws]) -> Scores:
    """Shares of judge scores; draws of a prompt with several logged rows are counted once."""
    import pandas as pd

    _, first_rows = np.unique(logged.prompt_id, return_index=True)
    scores = {logged.base_policy: logged.judge_score}
    targets = dict.fromkeys(policy for policy in (*logged.policies, *draws) if policy in draws)
    scores |= {policy: draws[policy].judge_score[np.sort(first_rows)].reshape(-1) for policy in targets}
    present = {policy: score[~np.isnan(score)] for policy, score in scores.items()}
    distinct = np.unique(np.concatenate(list(present.values())))
    discrete = len(distinct) <= MAX_DISTINCT
    edges = np.histogram_bin_edges(distinct, SCORE_BARS)
    half = 0.4 * min([*np.diff(distinct).tolist(), 0.05])
    bars = []
    for policy, score in present.items():
        if discrete:
            at, count = np.unique(score, return_counts=True)
            low, high = at - half, at + half
        else:
            count, low, high = np.histogram(score, edges)[0], edges[:-1], edges[1:]
        bars.append(pd.DataFrame({"policy": policy, "left": low, "right": high, "share": count / max(len(score), 1)}))
    return Scores(
        pd.concat(bars, ignore_index=True),
        {policy: float(score.mean()) for policy, score in present.items() if len(score)},
        {policy: len(score) for policy, score in present.items()},
        {policy: len(scores[policy]) - len(score) for policy, score in present.items()},
        discrete,
    )
