"""Figures of the data behind estimates: importance weights, calibration, judge scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotnine as p9

from arena_cje.report import theme, tidy
from arena_cje.report.theme import (
    BLUE,
    GREY,
    INK,
    PALE,
    SKY,
    VERMILION,
    in_order,
    look,
    message,
    name,
    padded,
    panel_titles,
    percent,
    plain,
    ticks,
    titles,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.estimation.records import Draws, Labelled, Logged
    from arena_cje.results.record import ResultRecord

DOTS = 2000  # largest number of labelled responses drawn as dots
JITTER = 0.012  # random shift of dots that would overlap, as a share of the axis
FLOOR, CEILING = -0.06, 1.06  # ends of the label axis


def weight_distributions(logged: Logged) -> p9.ggplot:
    """Histogram of raw mean-one weights on a log scale, one panel per policy."""
    title = "Importance weights of the logged responses"
    bars, panels = tidy.weights(logged)
    if not len(bars):
        return message(title, "The logged responses have no log probabilities under a target policy: no weights.")
    low, high = min(bars["left"].min(), -0.5), max(bars["right"].max(), 0.5)
    limits = np.array([-3, -2, 2, 3])
    limits = limits[(limits > low) & (limits < high)]
    lines = pd.DataFrame({"at": limits.astype(float), "kind": [f"{10 ** abs(k):,}" for k in limits.tolist()]})
    columns = min(len(panels), 3 if len(panels) > 4 else 2)
    width = max(3.4 * columns, 6.0)
    height = 1.7 + math.ceil(len(panels) / columns) * (1.9 + 0.15 * theme.lines([p.policy for p in panels], 38))
    bars = in_order(bars, "policy", logged.policies)
    every_policy = pd.DataFrame({"policy": [panel.policy for panel in panels]})  # also those without weights
    notes = ["The leftmost bar also holds all weights below 10⁻⁶ and zeros."] if low < tidy.LEAST else []
    return (
        p9.ggplot(bars)
        + p9.facet_wrap(
            "policy",
            ncol=columns,
            scales="free_y",
            labeller=panel_titles({p.policy: _weights_title(p) for p in panels}),
        )
        + p9.geom_vline(xintercept=0, color=INK, size=0.6)
        + p9.geom_vline(p9.aes(xintercept="at", linetype="kind"), data=lines, color=VERMILION, size=0.7)
        + p9.geom_rect(p9.aes(xmin="left", xmax="right", ymin=0, ymax="share"), fill=BLUE, color="white", size=0.2)
        + p9.geom_blank(p9.aes(x=0, y=0), data=in_order(every_policy, "policy", logged.policies))
        + p9.scale_linetype_manual(
            {"100": "dashed", "1,000": "dotted"}, limits=sorted(set(lines["kind"])), name="extreme: factor from one"
        )
        + p9.scale_x_continuous(limits=(low, high), breaks=_decades(low, high), labels=_powers)
        + p9.scale_y_continuous(labels=percent, expand=(0, 0, 0.06, 0))
        + p9.labs(x="importance weight (mean one, log scale)", y="share of the rows")
        + titles(
            title,
            "Raw weights by target policy. All at one (black line): the same policy. "
            "Spread out: few rows speak for the target. ESS: the share of rows that are effective.",
            width,
            notes=notes,
        )
        + look(width, height)
    )


def _weights_title(panel: tidy.WeightPanel) -> str:
    """Title of a panel: the policy and statistics of its weights."""
    unscored = f", {panel.n_unscored} not scored" if panel.n_unscored else ""
    if not panel.n:
        reason = "no row was scored" if panel.impossible == 0 else "the target could have given\nnone of the responses"
        return f"{name(panel.policy, 38)}\nno weights: {reason}"
    ess = f"ESS {panel.ess_share:.1%} of {panel.n} rows{unscored}"
    extreme = f"beyond 100: {panel.n_beyond_100}, 1,000: {panel.n_beyond_1000}, zero: {panel.n_zero}"
    return f"{name(panel.policy, 38)}\n{ess}\n{'every weight is exactly 1' if panel.all_one else extreme}"


def calibration_curve(result: ResultRecord, logged: Logged, calibration_data: Labelled | None = None) -> p9.ggplot:
    """Oracle label by judge score, with the calibrator, its folds, and the ranges of sparse labels."""
    title = "Oracle label by judge score, and the calibration"
    table = tidy.calibration_of(result, logged, calibration_data)
    low, high = padded(np.concatenate([table.logged_score, table.points["score"]]))
    width, n = 7.0, len(table.points)
    rng = np.random.default_rng(0)  # fixed seed, so that the figure is reproducible
    points = table.points + rng.uniform(-JITTER, JITTER, table.points.shape) * [high - low, 1.0]
    points = points.iloc[np.sort(rng.permutation(n)[:DOTS])]
    rug = pd.DataFrame({"score": _thin(table.logged_score), "y": FLOOR - 0.035, "yend": FLOOR})
    return (
        p9.ggplot()
        + p9.geom_rect(p9.aes(xmin="low", xmax="high"), data=table.sparse, ymin=FLOOR, ymax=CEILING, fill=PALE)
        + p9.geom_segment(
            p9.aes(x="score", xend="score", y="y", yend="yend"), data=rug, color=GREY, size=0.3, alpha=0.5
        )
        + p9.geom_point(p9.aes("score", "label"), data=points, color=SKY, size=1.8, alpha=0.55 if n < 400 else 0.25)
        + p9.geom_line(
            p9.aes("score", "reward", group="fold"), data=_fold_lines(table, low, high), color=GREY, size=0.5
        )
        + p9.geom_line(p9.aes("score", "reward"), data=_calibrator_line(table, low, high), color=BLUE, size=1.6)
        + p9.geom_segment(
            p9.aes(x="score", xend="score", y="low", yend="high"), data=table.bins.dropna(), color=VERMILION, size=0.9
        )
        + p9.geom_point(
            p9.aes("score", "label"), data=table.bins, color=VERMILION, fill="white", shape="D", size=2.6, stroke=0.9
        )
        + p9.scale_x_continuous(limits=(low, high), expand=(0, 0), breaks=ticks(low, high), labels=plain)
        + p9.scale_y_continuous(limits=(FLOOR - 0.04, CEILING), expand=(0, 0), breaks=[0, 0.25, 0.5, 0.75, 1])
        + p9.labs(x="judge score", y="oracle label")
        + titles(title, _calibration_subtitle(table), width, notes=_calibration_notes(table, result))
        + look(width, 5.6)
    )


def _calibration_subtitle(table: tidy.CalibrationTable) -> str:
    """How to read the figure of a calibration."""
    if table.mode == "none":
        line = "Blue line: judge scores are taken as they are, nothing was calibrated. "
    else:
        line = "Blue line: the calibrator. Thin grey lines: the same without one fold of the labels each. "
    if not len(table.points):
        return f"{line}There are no oracle labels to hold it against."
    n = len(table.points)
    count = f"{n}" if n <= DOTS else f"{DOTS} of {n}"
    return (
        f"Dots: {count} labelled responses (slightly shaken). {line}Diamonds: mean label of like scores, with "
        "a 95 % interval. Grey ground: responses, but fewer than 3 labels. Ticks below: all logged responses."
    )


def _calibration_notes(table: tidy.CalibrationTable, result: ResultRecord) -> list[str]:
    notes = [f"Calibration of {result.name}."]
    if table.all_labelled:
        notes.append("Every logged response is labelled: its own label stands for it, the curve for fresh draws alone.")
    if table.mode == "two_stage":
        notes.append("The calibrator also sees covariates; it is drawn at their median.")
    return notes


def _calibrator_line(table: tidy.CalibrationTable, low: float, high: float) -> pd.DataFrame:
    """The line of the calibrator; the identity if judge scores are not calibrated."""
    if table.mode == "none":
        return pd.DataFrame({"score": [low, high], "reward": [low, high]})
    return _extend_line(table.curve, table.mode, low, high)


def _fold_lines(table: tidy.CalibrationTable, low: float, high: float) -> pd.DataFrame:
    """The lines of the calibrators of the folds, from low to high."""
    parts = [_extend_line(curve, table.mode, low, high) for _, curve in table.folds.groupby("fold")]
    return pd.concat(parts) if parts else table.folds


def _extend_line(curve: pd.DataFrame, mode: str, low: float, high: float) -> pd.DataFrame:
    """The line of a monotone calibrator, constant beyond its knots up to low and high; others are not extended."""
    if mode == "two_stage":
        return curve
    ends = curve.iloc[[0, -1]].assign(score=[low, high])
    return pd.concat([ends.iloc[:1], curve, ends.iloc[1:]])


def judge_distributions(logged: Logged, draws: Mapping[str, Draws]) -> p9.ggplot:
    """Histograms of judge scores by policy: the base policy's logged responses, the targets' fresh draws."""
    scores = tidy.judge_scores(logged, draws)
    policies = list(scores.n)
    missing = [policy for policy in logged.policies if policy not in policies]
    columns = min(len(policies), 3 if len(policies) > 4 else 2)
    width = max(3.2 * columns, 6.0)
    bars = in_order(scores.bars, "policy", policies)
    base = scores.bars[scores.bars["policy"] == logged.base_policy]
    outlines = pd.concat([base.assign(policy=policy) for policy in policies[1:]] or [base.iloc[:0]])
    means = pd.DataFrame({"policy": list(scores.means), "mean": list(scores.means.values())})
    panel_texts = {policy: _scores_title(policy, policy == logged.base_policy, scores) for policy in policies}
    notes = [f"No fresh draws of {', '.join(missing)}: no scores of their own responses."] if missing else []
    return (
        p9.ggplot(bars)
        + p9.facet_wrap("policy", ncol=columns, scales="free_y", labeller=panel_titles(panel_texts))
        + p9.geom_rect(p9.aes(xmin="left", xmax="right", ymin=0, ymax="share"), fill=SKY, color="white", size=0.15)
        + p9.geom_rect(
            p9.aes(xmin="left", xmax="right", ymin=0, ymax="share"),
            data=in_order(outlines, "policy", policies),
            fill=None,
            color=INK,
            size=0.45,
        )
        + p9.geom_vline(
            p9.aes(xintercept="mean"), data=in_order(means, "policy", policies), color=VERMILION, linetype="dashed"
        )
        + p9.scale_y_continuous(labels=percent, expand=(0, 0, 0.06, 0))
        + p9.labs(x="judge score", y="share of the responses")
        + titles(
            "Judge scores of each policy's responses",
            f"Filled: shares of judge scores{', one bar a score' if scores.discrete else ''}; outlined: the base policy's, "
            "to compare. Dashed: the mean score. It is the judge's opinion, not the policy's value.",
            width,
            notes=notes,
        )
        + look(width, 1.7 + math.ceil(len(policies) / columns) * (1.7 + 0.15 * theme.lines(policies, 36)))
    )


def _scores_title(policy: str, is_base: bool, scores: tidy.Scores) -> str:
    """Title of a panel: the policy and its number of responses."""
    kind = "logged responses" if is_base else "fresh draws"
    missing = f", {scores.n_missing[policy]} more without a score" if scores.n_missing[policy] else ""
    return f"{name(policy, 36)}\n{scores.n[policy]} {kind}{missing}"


def _decades(low: float, high: float) -> list[float]:
    step = math.ceil((high - low) / 8)
    return [float(k) for k in range(math.ceil(low), math.floor(high) + 1) if k % step == 0]


def _powers(values: Sequence[float]) -> list[str]:
    superscripts = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return [f"{10.0**k:g}" if -3 <= k <= 3 else "10" + f"{k:.0f}".translate(superscripts) for k in values]


def _thin(values: np.ndarray, most: int = 1000) -> np.ndarray:
    """At most `most` of the values, evenly spaced in their order."""
    return np.sort(values)[:: max(1, math.ceil(len(values) / most))]
