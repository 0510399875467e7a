"""Figures of one coverage and of the sweep over coverages; each is a function from results and data to a ggplot.

A refused policy has its place in every figure, hatched and labelled "refused"; no mark of it has a position that could be
read as a value (`tidy` has no number of it). A figure that cannot be drawn is replaced by a message. This module has the
figures of estimates, `data_figures` those of the data behind them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotnine as p9

from arena_cje.report import theme, tidy
from arena_cje.report.data_figures import calibration_curve, judge_distributions, weight_distributions
from arena_cje.report.theme import (
    BLUE,
    GREY,
    HATCH,
    INK,
    PALE,
    VERMILION,
    distinct,
    in_order,
    look,
    name,
    padded,
    panel_titles,
    plain,
    save,
    ticks,
    titles,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.results.record import ResultRecord

__all__ = [
    "calibration_curve",
    "comparison_heatmap",
    "judge_distributions",
    "policy_estimates",
    "save",
    "sweep",
    "weight_distributions",
]

LEVEL_COLORS = {"ok": BLUE, "caution": VERMILION}
LEVEL_SHAPES = {"ok": "o", "caution": "^"}
ROW_WIDTH, CELL_WIDTH = 32, 20  # characters in a line of a policy name, for a row of a figure and for a cell
LEAST_SPAN = 0.2  # smallest range of an axis of values, so that small differences do not look large
LEAST_REACH = 0.05  # smallest range of the colours of differences, likewise
WORSE, EVEN, BETTER = "#B35806", "#F7F7F7", "#2166AC"


def policy_estimates(results: Sequence[ResultRecord], truth: Mapping[str, float] | None = None) -> p9.ggplot:
    """Forest plot: one panel per estimator, one row per policy, the base policy on top."""
    table = tidy.estimates(results, truth)
    policies, estimators = distinct(table["policy"]), distinct(table["estimator"])
    table = in_order(table, "estimator", estimators).assign(
        row=[len(policies) - policies.index(policy) for policy in table["policy"]]
    )
    published, refused = table[table["estimate"].notna()], table[table["level"] == "refuse"]
    limits = _limits(published[["ci_lower", "ci_upper", "truth"]], table["truth"])
    panel_rows = math.ceil(len(estimators) / 5)  # rows of panels of about equal length
    columns = math.ceil(len(estimators) / panel_rows)
    width = 3.2 + max(2.2 * columns, 4.0)
    height = 1.7 + panel_rows * (0.6 + _row_height(policies) * len(policies))
    return (
        p9.ggplot(table, p9.aes(y="row"))
        + p9.facet_wrap("estimator", ncol=columns, labeller=panel_titles({text: name(text, 26) for text in estimators}))
        + _refused_rows(refused, limits)
        + _truth_marks(table)
        + p9.geom_segment(p9.aes(x="ci_lower", xend="ci_upper", yend="row", color="level"), data=published, size=0.9)
        + p9.geom_point(p9.aes(x="estimate", color="level", shape="level"), data=published, size=2.6)
        + p9.scale_color_manual(LEVEL_COLORS, limits=list(LEVEL_COLORS), name="verdict")
        + p9.scale_shape_manual(LEVEL_SHAPES, limits=list(LEVEL_SHAPES), name="verdict")
        + p9.scale_x_continuous(limits=limits, expand=(0, 0), breaks=ticks(*limits, most=5), labels=plain)
        + _policy_rows(policies, results[0].base_policy)
        + p9.labs(x="policy value: mean oracle label", y="")
        + titles(
            "Policy values: estimates and intervals",
            f"Estimate and {_level(results)} interval by policy; a panel an estimator. "
            + ("Black bars: the truth, which no estimate has seen. " if table["truth"].notna().any() else "")
            + ("Struck out: refused, the data cannot carry a claim." if len(refused) else ""),
            width,
        )
        + look(width, height)
        + p9.theme(panel_grid_major_y=p9.element_blank())
    )


def _refused_rows(refused: pd.DataFrame, limits: tuple[float, float]) -> list[p9.layer]:
    """A grey, hatched row with the word "refused" over the whole width of the panel, for each refused policy."""
    if not len(refused):
        return []
    strokes = [
        {"estimator": row.estimator} | stroke
        for row in refused.itertuples()
        for stroke in theme.hatching(limits, row.row, 0.38, 24)
    ]
    hatched = in_order(pd.DataFrame(strokes), "estimator", refused["estimator"].cat.categories.tolist())
    span = dict(xmin=limits[0], xmax=limits[1])
    return [
        p9.geom_rect(p9.aes(ymin="row - 0.38", ymax="row + 0.38"), data=refused, fill=PALE, inherit_aes=False, **span),
        p9.geom_segment(
            p9.aes(x="x", xend="xend", y="y", yend="yend"), data=hatched, color=HATCH, size=0.5, inherit_aes=False
        ),
        p9.geom_label(
            p9.aes(x="word", y="row"),
            data=refused.assign(word=[_word_position(truth, limits) for truth in refused["truth"]]),
            label="refused",
            size=8,
            color=GREY,
            fill="white",
            label_size=0,
            label_padding=0.15,
            fontstyle="italic",
            inherit_aes=False,
        ),
    ]


def _word_position(truth: float, limits: tuple[float, float]) -> float:
    """Position of the word "refused": the middle of the axis, unless the truth is there."""
    low, high = limits
    near = abs((truth - low) / (high - low) - 0.5) < 0.2
    return low + (high - low) * (0.5 if not near else 0.85 if truth < (low + high) / 2 else 0.15)


def _truth_marks(table: pd.DataFrame) -> list[p9.layer]:
    """Black bars at the true values, where they are known."""
    truths = table[table["truth"].notna()]
    if not len(truths):
        return []
    bar = p9.aes(x="truth", xend="truth", y="row - 0.36", yend="row + 0.36")
    return [p9.geom_segment(bar, data=truths, color=INK, size=1.3, inherit_aes=False)]


def _policy_rows(policies: Sequence[str], base: str) -> p9.scale_y_continuous:
    """An axis with one row per policy, the first one on top."""
    count = len(policies)
    labels = [name(f"{policy} (logged)" if policy == base else policy, ROW_WIDTH) for policy in policies]
    return p9.scale_y_continuous(
        breaks=list(range(count, 0, -1)), labels=labels, limits=(0.5, count + 0.5), expand=(0, 0)
    )


def _row_height(policies: Sequence[str]) -> float:
    """Height in inches of a row that fits the longest name."""
    return max(0.32, 0.15 * theme.lines(policies, ROW_WIDTH) + 0.08)


def comparison_heatmap(result: ResultRecord) -> p9.ggplot:
    """Differences between all pairs of policies: row minus column."""
    policies = list(result.all_policies)
    count = len(policies)
    table = tidy.differences(result)
    table = table.assign(
        x=[policies.index(policy) + 1 for policy in table["column"]],
        y=[count - policies.index(policy) for policy in table["row"]],
    )
    computed, refused = table[table["kind"] == "known"], table[table["kind"] == "refused"]
    reach = max([LEAST_REACH, *computed["difference"].abs()])
    dark = computed["difference"].abs() > 0.8 * reach
    computed = computed.assign(
        text=[_difference_text(*cell) for cell in zip(computed["difference"], computed["apart"], strict=True)]
    )
    words = table[table["kind"].isin(["refused", "unknown"])]
    labels = [name(policy, CELL_WIDTH) for policy in policies]
    side = max(0.62, 0.15 * theme.lines(policies, CELL_WIDTH) + 0.1)
    width = max(2.4 + side * 1.15 * count, 6.2)
    size = 7.5 if count > 6 else 9
    strokes = [theme.hatching((cell.x - 0.48, cell.x + 0.48), cell.y, 0.48, 5) for cell in refused.itertuples()]
    hatched = pd.DataFrame(sum(strokes, []), columns=["x", "xend", "y", "yend"])
    return (
        p9.ggplot(table, p9.aes("x", "y"))
        + p9.geom_tile(p9.aes(fill="difference"), data=computed, width=0.96, height=0.96)
        + p9.geom_tile(data=table[table["kind"] != "known"], fill=PALE, width=0.96, height=0.96)
        + p9.geom_segment(p9.aes(x="x", xend="xend", y="y", yend="yend"), data=hatched, color=HATCH, size=0.4)
        + p9.geom_text(p9.aes(label="text"), data=computed[~dark], color=INK, size=size, lineheight=1.2)
        + p9.geom_text(p9.aes(label="text"), data=computed[dark], color="white", size=size, lineheight=1.2)
        + p9.geom_text(p9.aes(label="kind"), data=words, color=GREY, size=size - 1.5, fontstyle="italic")
        + p9.scale_fill_gradient2(
            low=WORSE,
            mid=EVEN,
            high=BETTER,
            midpoint=0,
            limits=(-reach, reach),
            breaks=ticks(-reach, reach, most=4),
            name="difference",
        )
        + p9.scale_x_continuous(breaks=list(range(1, count + 1)), labels=labels, expand=(0, 0.06))
        + p9.scale_y_continuous(breaks=list(range(count, 0, -1)), labels=labels, expand=(0, 0.06))
        + p9.labs(x="minus this policy", y="this policy")
        + titles(
            "Differences between policies",
            "Row minus column: blue and + where the row's policy is better. A star: the corrected interval leaves zero out, and "
            "labels speak for both policies; ns: not told apart."
            + (" Struck out: a refused policy has no level to compare." if len(refused) else ""),
            width,
            notes=[
                f"Paired differences of {result.name} on the same prompts, corrected over those to "
                f"{result.decision.get('against', result.base_policy)}, and over the others."
            ],
        )
        + look(width, 2.4 + side * count)
        + p9.theme(
            axis_text_x=p9.element_text(rotation=90 if count > 4 else 0, va="top", ha="center"),
            panel_grid_major=p9.element_blank(),
            legend_key_width=90,
            legend_key_height=10,
        )
    )


def _difference_text(value: float, apart: bool) -> str:
    """Text of a cell: the difference, and whether it tells the two policies apart."""
    text = f"{value:+.3f}" if abs(value) >= 0.0005 else "0.000"
    return f"{text}\n{'*' if apart else 'ns'}".replace("-", "−")


def sweep(results: Mapping[str, Sequence[ResultRecord]], truth: Mapping[str, float] | None = None) -> p9.ggplot:
    """Estimates by coverage and estimator, one panel per policy; refused ones are marks at the lower edge of the panel."""
    table = tidy.over_coverages(results, truth)
    coverages, policies, estimators = list(results), distinct(table["policy"]), distinct(table["estimator"])
    shift = 0.8 * ((np.arange(len(estimators)) + 0.5) / len(estimators) - 0.5)
    at = [coverages.index(row.coverage) + shift[estimators.index(row.estimator)] for row in table.itertuples()]
    table = in_order(in_order(table.assign(at=at), "policy", policies), "estimator", estimators)
    published, refused = table[table["estimate"].notna()], table[table["level"] == "refuse"]
    low, high = _limits(published[["ci_lower", "ci_upper", "truth"]], table["truth"])
    strip = 0.10 * (high - low)
    edge, values = low - strip, ticks(low, high)
    columns = min(len(policies), 3 if len(policies) > 6 else 2)
    width = max(1.2 + columns * max(3.0, 0.5 + 0.075 * len(coverages) * len(estimators)), 6.5)
    truths = table[["policy", "truth"]].drop_duplicates().dropna()
    panel_texts = {policy: name(policy, 38) for policy in policies}
    band = in_order(pd.DataFrame({"policy": policies, "y": edge + strip / 2}), "policy", policies)
    span = (-0.5, len(coverages) - 0.5)
    first_results = results[coverages[0]]
    labels = [name(estimator, 26) for estimator in estimators]
    return (
        p9.ggplot(table, p9.aes("at", color="estimator", shape="estimator"))
        + p9.facet_wrap("policy", ncol=columns, labeller=panel_titles(panel_texts))
        + p9.geom_rect(data=band, xmin=span[0], xmax=span[1], ymin=edge, ymax=low, fill=PALE, inherit_aes=False)
        + p9.geom_vline(xintercept=[k + 0.5 for k in range(len(coverages) - 1)], color="#D0D0D0", size=0.5)
        + p9.geom_hline(p9.aes(yintercept="truth"), data=truths, color=INK, size=0.9)
        + p9.geom_linerange(p9.aes(ymin="ci_lower", ymax="ci_upper"), data=published, size=0.7)
        + p9.geom_point(p9.aes(y="estimate"), data=published, size=1.9)
        + p9.geom_point(data=refused, y=edge + strip / 2, size=1.9, fill="white", show_legend=False)
        + p9.scale_color_manual(theme.cycle(theme.CYCLE, len(estimators)), limits=estimators, labels=labels)
        + p9.scale_shape_manual(theme.cycle(theme.SHAPES, len(estimators)), limits=estimators, labels=labels)
        + p9.scale_x_continuous(breaks=list(range(len(coverages))), labels=coverages, limits=span, expand=(0, 0))
        + p9.scale_y_continuous(
            breaks=[edge + strip / 2, *values], labels=["refused", *plain(values)], limits=(edge, high), expand=(0, 0)
        )
        + p9.labs(x="share of prompts with an oracle label", y="policy value", color="", shape="")
        + titles(
            "Policy values by oracle coverage and estimator",
            f"Estimate and {_level(first_results)} interval by coverage and estimator; a panel a policy. "
            + ("Black line: the truth. " if len(truths) else "")
            + "Marks in the grey band at the bottom: refused there, without a value.",
            width,
        )
        + look(width, 1.9 + math.ceil(len(policies) / columns) * (1.9 + 0.15 * theme.lines(policies, 38)))
        + p9.theme(panel_grid_major_x=p9.element_blank())
    )


def _level(results: Sequence[ResultRecord]) -> str:
    """Confidence level of the intervals, in words if estimators differ."""
    levels = {result.document["metadata"]["alpha"] for result in results}
    return f"{100 * (1 - levels.pop()):g} %" if len(levels) == 1 else "its own"


def _limits(published: pd.DataFrame, truth: pd.Series) -> tuple[float, float]:
    """Range of all values, with room at both ends; the range of labels if there is no value."""
    values = np.concatenate([published.to_numpy(dtype=float).ravel(), truth.to_numpy(dtype=float)])
    if not np.isfinite(values).any():
        return -0.05, 1.05
    low, high = padded(values)
    margin = max(0.0, LEAST_SPAN - (high - low)) / 2
    return low - margin, high + margin
