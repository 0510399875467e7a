"""Figures of the data that estimates stand on: importance weights, calibration, judge scores."""

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

DOTS = 2000  # labelled responses: more of them are one blot
SHAKE = 0.012  # of points that would cover each other, as a share of the axis
FLOOR, CEILING = -0.06, 1.06  # of the label axis


def weight_distributions(logged: Logged) -> p9.ggplot:
    """Histogram of raw mean-one weights on a log scale; a panel a policy."""
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
    drawn = in_order(bars, "policy", logged.policies)
    notes = ["The leftmost bar also holds all weights below 10⁻⁶ and zeros."] if low < tidy.LEAST else []
    return (
        p9.ggplot(drawn)
        + p9.facet_wrap(
            "policy", ncol=columns, scales="free_y", labeller=panel_titles({p.policy: _weights_said(p) for p in panels})
        )
        + p9.geom_vline(xintercept=0, color=INK, size=0.6)
        + p9.geom_vline(p9.aes(xintercept="at", linetype="kind"), data=lines, color=VERMILION, size=0.7)
        + p9.geom_rect(p9.aes(xmin="left", xmax="right", ymin=0, ymax="share"), fill=BLUE, color="white", size=0.2)
        + p9.geom_blank(p9.aes(x=0, y=0), data=in_order(_panels(panels), "policy", logged.policies))
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


def _panels(panels: Sequence[tidy.WeightPanel]) -> pd.DataFrame:
    """A row a policy, so that one without weights has its panel too."""
    return pd.DataFrame({"policy": [panel.policy for panel in panels]})


def _weights_said(panel: tidy.WeightPanel) -> str:
    unscored = f", {panel.n_unscored} not scored" if panel.n_unscored else ""
    if not panel.n:
        why = "no row was scored" if panel.impossible == 0 else "the target could have given\nnone of the responses"
        return f"{name(panel.policy, 38)}\nno weights: {why}"
    said = f"ESS {panel.ess_share:.1%} of {panel.n} rows{unscored}"
    extreme = f"beyond 100: {panel.n_beyond_100}, 1,000: {panel.n_beyond_1000}, zero: {panel.n_zero}"
    return f"{name(panel.policy, 38)}\n{said}\n{'every weight is exactly 1' if panel.all_one else extreme}"


def calibration_curve(result: ResultRecord, logged: Logged, beside: Labelled | None = None) -> p9.ggplot:
    """Oracle label by judge score, with the calibrator, its folds, and where labels are sparse."""
    title = "Oracle label by judge score, and the calibration"
    found = tidy.calibration_of(result, logged, beside)
    low, high = padded(np.concatenate([found.logged_score, found.points["score"]]))
    width, n = 7.0, len(found.points)
    rng = np.random.default_rng(0)  # the same places in every drawing
    shaken = found.points + rng.uniform(-SHAKE, SHAKE, found.points.shape) * [high - low, 1.0]
    shaken = shaken.iloc[np.sort(rng.permutation(n)[:DOTS])]
    rug = pd.DataFrame({"score": _thinned(found.logged_score), "y": FLOOR - 0.035, "yend": FLOOR})
    return (
        p9.ggplot()
        + p9.geom_rect(p9.aes(xmin="low", xmax="high"), data=found.sparse, ymin=FLOOR, ymax=CEILING, fill=PALE)
        + p9.geom_segment(
            p9.aes(x="score", xend="score", y="y", yend="yend"), data=rug, color=GREY, size=0.3, alpha=0.5
        )
        + p9.geom_point(p9.aes("score", "label"), data=shaken, color=SKY, size=1.8, alpha=0.55 if n < 400 else 0.25)
        + p9.geom_line(
            p9.aes("score", "reward", group="fold"), data=_edge_to_edge(found, low, high), color=GREY, size=0.5
        )
        + p9.geom_line(p9.aes("score", "reward"), data=_calibrator(found, low, high), color=BLUE, size=1.6)
        + p9.geom_segment(
            p9.aes(x="score", xend="score", y="low", yend="high"), data=found.bins.dropna(), color=VERMILION, size=0.9
        )
        + p9.geom_point(
            p9.aes("score", "label"), data=found.bins, color=VERMILION, fill="white", shape="D", size=2.6, stroke=0.9
        )
        + p9.scale_x_continuous(limits=(low, high), expand=(0, 0), breaks=ticks(low, high), labels=plain)
        + p9.scale_y_continuous(limits=(FLOOR - 0.04, CEILING), expand=(0, 0), breaks=[0, 0.25, 0.5, 0.75, 1])
        + p9.labs(x="judge score", y="oracle label")
        + titles(title, _calibration_how(found), width, notes=_calibration_notes(found, result))
        + look(width, 5.6)
    )


def _calibration_how(found: tidy.CalibrationTable) -> str:
    if found.mode == "none":
        line = "Blue line: judge scores are taken as they are, nothing was calibrated. "
    else:
        line = "Blue line: the calibrator. Thin grey lines: the same without one fold of the labels each. "
    if not len(found.points):
        return f"{line}There are no oracle labels to hold it against."
    n = len(found.points)
    shown = f"{n}" if n <= DOTS else f"{DOTS} of {n}"
    return (
        f"Dots: {shown} labelled responses (slightly shaken). {line}Diamonds: mean label of like scores, with "
        "a 95 % interval. Grey ground: responses, but fewer than 3 labels. Ticks below: all logged responses."
    )


def _calibration_notes(found: tidy.CalibrationTable, result: ResultRecord) -> list[str]:
    notes = [f"Calibration of {result.name}."]
    if found.all_labelled:
        notes.append("Every logged response is labelled: its own label stands for it, the curve for fresh draws alone.")
    if found.mode == "two_stage":
        notes.append("The calibrator also sees covariates; it is drawn at their median.")
    return notes


def _calibrator(found: tidy.CalibrationTable, low: float, high: float) -> pd.DataFrame:
    """The fitted curve; where nothing was fitted, the judge's own scale."""
    if found.mode == "none":
        return pd.DataFrame({"score": [low, high], "reward": [low, high]})
    return _extended(found.curve, found.mode, low, high)


def _edge_to_edge(found: tidy.CalibrationTable, low: float, high: float) -> pd.DataFrame:
    parts = [_extended(curve, found.mode, low, high) for _, curve in found.folds.groupby("fold")]
    return pd.concat(parts) if parts else found.folds


def _extended(curve: pd.DataFrame, mode: str, low: float, high: float) -> pd.DataFrame:
    """A monotone calibrator is constant beyond its knots, one that sees covariates is known between its ends alone."""
    if mode == "two_stage":
        return curve
    ends = curve.iloc[[0, -1]].assign(score=[low, high])
    return pd.concat([ends.iloc[:1], curve, ends.iloc[1:]])


def judge_distributions(logged: Logged, draws: Mapping[str, Draws]) -> p9.ggplot:
    """Judge scores by policy: the base's logged responses, the targets' fresh draws."""
    found = tidy.judge_scores(logged, draws)
    policies = list(found.n)
    missing = [policy for policy in logged.policies if policy not in policies]
    columns = min(len(policies), 3 if len(policies) > 4 else 2)
    width = max(3.2 * columns, 6.0)
    bars = in_order(found.bars, "policy", policies)
    base = found.bars[found.bars["policy"] == logged.base_policy]
    behind = pd.concat([base.assign(policy=policy) for policy in policies[1:]] or [base.iloc[:0]])
    means = pd.DataFrame({"policy": list(found.means), "mean": list(found.means.values())})
    said = {policy: _scores_said(policy, policy == logged.base_policy, found) for policy in policies}
    notes = [f"No fresh draws of {', '.join(missing)}: no scores of their own responses."] if missing else []
    return (
        p9.ggplot(bars)
        + p9.facet_wrap("policy", ncol=columns, scales="free_y", labeller=panel_titles(said))
        + p9.geom_rect(p9.aes(xmin="left", xmax="right", ymin=0, ymax="share"), fill=SKY, color="white", size=0.15)
        + p9.geom_rect(
            p9.aes(xmin="left", xmax="right", ymin=0, ymax="share"),
            data=in_order(behind, "policy", policies),
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
            f"Filled: shares of judge scores{', one bar a score' if found.discrete else ''}; outlined: the base policy's, "
            "to compare. Dashed: the mean score. It is the judge's opinion, not the policy's value.",
            width,
            notes=notes,
        )
        + look(width, 1.7 + math.ceil(len(policies) / columns) * (1.7 + 0.15 * theme.lines(policies, 36)))
    )


def _scores_said(policy: str, is_base: bool, found: tidy.Scores) -> str:
    what = "logged responses" if is_base else "fresh draws"
    without = f", {found.n_missing[policy]} more without a score" if found.n_missing[policy] else ""
    return f"{name(policy, 36)}\n{found.n[policy]} {what}{without}"


def _decades(low: float, high: float) -> list[float]:
    step = math.ceil((high - low) / 8)
    return [float(k) for k in range(math.ceil(low), math.floor(high) + 1) if k % step == 0]


def _powers(values: Sequence[float]) -> list[str]:
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return [f"{10.0**k:g}" if -3 <= k <= 3 else "10" + f"{k:.0f}".translate(raised) for k in values]


def _thinned(values: np.ndarray, most: int = 1000) -> np.ndarray:
    """At most so many of the values, evenly over their order: more ticks are one black bar."""
    return np.sort(values)[:: max(1, math.ceil(len(values) / most))]
