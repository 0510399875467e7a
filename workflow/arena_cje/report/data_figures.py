"""Figures of the data behind estimates: importance weights, calibration, judge scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

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
from arena_cje.report.weight_bins import EXTREME, HIGHEST, LOWEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.estimation.records import Draws, Labelled, Logged
    from arena_cje.results.record import ResultRecord

DOTS = 2000  # largest number of labelled responses drawn as dots
JITTER = 0.012  # random shift of dots that would overlap, as a share of the axis
MANY_EQUAL = 0.05  # share of rows with equal log probabilities that the title of a panel names
TITLE_WIDTH = 38  # characters in a line of the title of a panel
FLOOR, CEILING = -0.06, 1.06  # ends of the label axis


def weight_distributions(logged: Logged) -> p9.ggplot:
    """Histogram of raw mean-one weights on a log scale, one panel per policy."""
    title = "Importance weights of the logged responses"
    bars, panels = tidy.weights(logged)
    if not len(bars):
        return message(title, "The logged responses have no log probabilities under a target policy: no weights.")
    low, high = min(bars["left"].min(), -0.5), max(bars["right"].max(), 0.5)
    at_ends = {
        LOWEST: "the first bar has all smaller weights and zeros",
        HIGHEST: "the last bar has all larger weights",
    }
    notes = [text for end, text in at_ends.items() if low < end < high and (low < LOWEST or high > HIGHEST)]
    lines = [math.log10(weight) for weight in EXTREME if low < math.log10(weight) < high]
    columns = min(len(panels), 3 if len(panels) > 4 else 2)
    width = max(3.4 * columns, 6.0)
    panel_texts = {panel.policy: _weights_title(panel) for panel in panels}
    most_lines = max(text.count("\n") + 1 for text in panel_texts.values())
    height = 1.6 + math.ceil(len(panels) / columns) * (1.9 + 0.16 * most_lines)
    bars = in_order(bars, "policy", logged.policies)
    every_policy = pd.DataFrame({"policy": [panel.policy for panel in panels]})  # also those without weights
    return (
        p9.ggplot(bars)
        + p9.facet_wrap("policy", ncol=columns, scales="free", labeller=panel_titles(panel_texts))
        + p9.geom_vline(xintercept=0, color=INK, size=0.6)
        + p9.geom_vline(xintercept=lines, color=VERMILION, linetype="dashed", size=0.7)
        + p9.geom_rect(p9.aes(xmin="left", xmax="right", ymin=0, ymax="share"), fill=BLUE, color="white", size=0.2)
        + p9.geom_blank(p9.aes(x=0, y=0), data=in_order(every_policy, "policy", logged.policies))
        + p9.scale_x_continuous(limits=(low, high), breaks=_decades(low, high), labels=_powers)
        + p9.scale_y_continuous(labels=percent, expand=(0, 0, 0.06, 0))
        + p9.labs(x="importance weight, scaled to mean 1 (log scale)", y="share of the logged responses")
        + titles(
            title,
            "A weight is the probability of a logged response under the target over that under the base. A policy equal to the "
            "base has only weights of 1 (black line). ESS, the effective sample size, is the smaller the more they differ."
            + (
                " Dashed: weights of 0.01 and 100."
                if len(lines) == len(EXTREME)
                else " Dashed: a weight of " * len(lines)
            )
            + "".join(f"{10**at:g}." for at in lines if len(lines) == 1),
            width,
            notes=[f"{'; '.join(notes).capitalize()}."] if notes else (),
        )
        + look(width, height)
    )


def _weights_title(panel: tidy.WeightPanel) -> str:
    """Title of a panel: the policy and statistics of its weights."""
    policy = name(panel.policy, TITLE_WIDTH)
    if not panel.n:
        reason = "no row was scored" if panel.impossible == 0 else "the target could have given\nnone of the responses"
        return f"{policy}\nno weights: {reason}"
    counts = {
        "above 100": panel.n_above_100,
        "below 0.01": panel.n_below_0_01,
        "zero": panel.n_zero,
        "not scored": panel.n_unscored,
        "equal log probabilities": panel.n_equal if MANY_EQUAL * panel.n <= panel.n_equal < panel.n else 0,
    }
    facts = [f"ESS {100 * panel.ess_share:.1f} % of {panel.n}"]
    facts += ["every weight is exactly 1"] if panel.all_one else [f"largest {panel.max_weight:.3g}"]
    facts += [f"{what}: {count}" for what, count in counts.items() if count]
    wrapped = [""]
    for fact in facts:
        joined = f"{wrapped[-1]}, {fact}" if wrapped[-1] else fact
        wrapped[-1:] = [joined] if len(joined) <= TITLE_WIDTH else [wrapped[-1], fact]
    return "\n".join([policy, *wrapped])


def calibration_curve(result: ResultRecord, logged: Logged, calibration_data: Labelled | None = None) -> p9.ggplot:
    """Oracle label by judge score, with the calibrator, its folds, and the ranges of sparse labels."""
    title = "Oracle label by judge score, and the calibration"
    table = tidy.calibration_of(result, logged, calibration_data)
    low, high = padded(np.concatenate([table.logged_score, table.points["score"]]))
    width, n = 7.5, len(table.points)
    marks = _calibration_marks(table)
    rng = np.random.default_rng(0)  # fixed seed, so that the figure is reproducible
    points = table.points + rng.uniform(-JITTER, JITTER, table.points.shape) * [high - low, 1.0]
    points["label"] = points["label"].clip(0, 1)
    points = points.iloc[np.sort(rng.permutation(n)[:DOTS])]
    rug = pd.DataFrame({"score": _thin(table.logged_score), "y": FLOOR - 0.035, "yend": FLOOR})
    kinds = {kind: mark.words for kind, mark in marks.items()}
    override = {
        field: [getattr(mark, field) for mark in marks.values()] for field in ("shape", "linetype", "size", "fill")
    }
    return (
        p9.ggplot(mapping=p9.aes(color="kind"))
        + p9.geom_rect(
            p9.aes(xmin="low", xmax="high"), data=table.sparse, ymin=FLOOR, ymax=CEILING, fill=PALE, inherit_aes=False
        )
        + p9.geom_segment(
            p9.aes(x="score", xend="score", y="y", yend="yend"), data=rug.assign(kind="rug"), size=0.3, alpha=0.5
        )
        + p9.geom_point(
            p9.aes("score", "label"), data=points.assign(kind="dots"), size=1.8, alpha=0.55 if n < 400 else 0.25
        )
        + p9.geom_line(
            p9.aes("score", "reward", group="fold"), data=_fold_lines(table, low, high).assign(kind="folds"), size=0.5
        )
        + p9.geom_line(
            p9.aes("score", "reward", group=1), data=_calibrator_line(table, low, high).assign(kind="line"), size=1.6
        )
        + p9.geom_segment(
            p9.aes(x="score", xend="score", y="low", yend="high"),
            data=table.bins.dropna().assign(kind="groups"),
            size=0.9,
        )
        + p9.geom_point(
            p9.aes("score", "label"),
            data=table.bins.assign(kind="groups"),
            fill="white",
            shape="D",
            size=2.6,
            stroke=0.9,
        )
        + p9.scale_color_manual(
            {kind: mark.color for kind, mark in marks.items()},
            limits=list(marks),
            labels=[kinds[kind] for kind in marks],
            guide=p9.guide_legend(ncol=2, override_aes=override),
        )
        + p9.scale_x_continuous(limits=(low, high), expand=(0, 0), breaks=ticks(low, high), labels=plain)
        + p9.scale_y_continuous(limits=(FLOOR - 0.04, CEILING), expand=(0, 0), breaks=[0, 0.25, 0.5, 0.75, 1])
        + p9.labs(x="judge score", y="oracle label", color="")
        + titles(title, _calibration_subtitle(table, result), width, notes=_calibration_notes(table))
        + look(width, 6.2)
    )


class Mark(NamedTuple):
    """An entry of the legend of the calibration."""

    words: str
    color: str
    shape: str = ""
    linetype: str = ""
    size: float = 2.0
    fill: str = "none"


def _calibration_marks(table: tidy.CalibrationTable) -> dict[str, Mark]:
    """The marks that the figure has, by kind."""
    n = len(table.points)
    of_dots = f"{DOTS} of {n} labelled responses" if n > DOTS else f"{n} labelled response{'s' * (n != 1)}"
    line = "judge scores taken as they are" if table.mode == "none" else "calibration: label expected at a score"
    marks = {"dots": Mark(of_dots, SKY, "o", fill=SKY)} if n else {}
    marks["line"] = Mark(line, BLUE, linetype="solid", size=1.6)
    if len(table.bins):
        words = "mean label of similar scores, 95 % interval"
        marks["groups"] = Mark(words, VERMILION, "D", "solid", 2.6, "white")
    if len(table.folds):
        marks["folds"] = Mark("the same without one fold of labels each", GREY, linetype="solid", size=0.5)
    marks["rug"] = Mark("judge scores of all logged responses", GREY, "|", size=3.0)
    return marks


def _calibration_subtitle(table: tidy.CalibrationTable, result: ResultRecord) -> str:
    """What the figure shows, in a sentence or two."""
    text = (
        f"Calibration of {result.name}." if table.mode != "none" else f"{result.name} does not calibrate judge scores."
    )
    if not len(table.points):
        return f"{text} There are no oracle labels to compare with."
    return text + (" Grey areas: fewer than 3 labels for the scores there." if len(table.sparse) else "")


def _calibration_notes(table: tidy.CalibrationTable) -> list[str]:
    notes = []
    if table.all_labelled:
        notes.append("Every logged response is labelled: the curve is used for fresh draws alone.")
    if table.mode == "two_stage":
        notes.append("The calibrator also uses covariates; it is drawn at their median.")
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
        + p9.facet_wrap("policy", ncol=columns, scales="free", labeller=panel_titles(panel_texts))
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
        + p9.scale_x_continuous(limits=(bars["left"].min(), bars["right"].max()))
        + p9.scale_y_continuous(labels=percent, expand=(0, 0, 0.06, 0))
        + p9.labs(x="judge score", y="share of the responses")
        + titles(
            "Judge scores of each policy's responses",
            f"Blue: judge scores of the policy{', a bar for each score' if scores.discrete else ''}; outline: those of the base "
            "policy. Dashed: the mean score, which is not the policy's value.",
            width,
            notes=notes,
        )
        + look(width, 1.7 + math.ceil(len(policies) / columns) * (1.9 + 0.15 * theme.lines(policies, 36)))
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
