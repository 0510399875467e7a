"""Figures of one coverage and of the sweep over coverages; each is a function from results and data to a ggplot.

A refused policy is named in every figure and has no position that could be read as a value (`tidy` has no number of it). A
figure that cannot be drawn is replaced by a message. This module has the figures of estimates, `data_figures` those of the
data behind them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotnine as p9

from arena_cje.report import theme, tidy, value_axis
from arena_cje.report.data_figures import calibration_curve, judge_distributions, weight_distributions
from arena_cje.report.theme import (
    BLUE,
    GREY,
    INK,
    PALE,
    VERMILION,
    distinct,
    in_order,
    look,
    message,
    name,
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
FEW_ESTIMATORS = 3  # up to this many have a panel each, with a row per policy; of more, each policy has a panel
ROW_WIDTH, CELL_WIDTH = 32, 20  # characters in a line of a name, for a row of a figure and for a cell
PANEL_WIDTH = 44  # characters in a line of the title of a panel
MANY_CELLS = 6  # policies from which on the columns of the heat map have numbers in place of names
LEAST_REACH = 0.05  # smallest range of the colours of differences, so that small ones do not look large
WORSE, EVEN, BETTER = "#B35806", "#F7F7F7", "#2166AC"
VALUE = "policy value: mean oracle label"


def policy_estimates(results: Sequence[ResultRecord], truth: Mapping[str, float] | None = None) -> p9.ggplot:
    """Estimates and intervals: a panel per estimator with a row per policy; of many estimators the other way round.

    results: the recommended one first.
    """
    title = "Policy values"
    table = tidy.estimates(results, truth)
    panel, row = ("estimator", "policy") if len(results) <= FEW_ESTIMATORS else ("policy", "estimator")
    table, notes = _without_empty(table, panel)
    if not len(table):
        return message(title, " ".join(["No estimate is published.", *notes]))
    panels, rows = distinct(table[panel]), distinct(table[row])
    words = _row_words(results)
    table = in_order(table, panel, panels).assign(at=[len(rows) - rows.index(one) for one in table[row]])
    limits = value_axis.limits(_axis_rows(table))
    published, refused = _clipped(table[table["estimate"].notna()], limits), table[table["level"] == "refuse"]
    width, columns = (3.2 + 3.4 * len(panels), len(panels)) if panel == "estimator" else (10.5, 2)
    lines = sum(theme.lines([words[one]], ROW_WIDTH) for one in rows)
    title_lines = theme.lines([words[one] for one in panels], PANEL_WIDTH)
    height = 2.1 + math.ceil(len(panels) / columns) * (0.2 + 0.17 * title_lines + 0.1 * len(rows) + 0.15 * lines)
    levels = [level for level in LEVEL_COLORS if (published["level"] == level).any()]
    return (
        p9.ggplot(table, p9.aes(y="at"))
        + p9.facet_wrap(
            panel, ncol=columns, labeller=panel_titles({one: name(words[one], PANEL_WIDTH) for one in panels})
        )
        + _refused_rows(refused, limits)
        + _truth_marks(table[table["level"] != "refuse"])
        + p9.geom_segment(p9.aes(x="start", xend="end", yend="at", color="level"), data=published, size=0.9)
        + p9.geom_point(p9.aes(x="estimate", color="level", shape="level"), data=published, size=2.6)
        + _arrows(published, limits, p9.aes(x="edge", y="at", label="arrow"))
        + p9.scale_color_manual({level: LEVEL_COLORS[level] for level in levels}, limits=levels, name="verdict")
        + p9.scale_shape_manual({level: LEVEL_SHAPES[level] for level in levels}, limits=levels, name="verdict")
        + p9.scale_x_continuous(limits=limits, expand=(0, 0), breaks=ticks(*limits, most=5), labels=plain)
        + p9.scale_y_continuous(
            breaks=list(range(len(rows), 0, -1)),
            labels=[name(words[one], ROW_WIDTH) for one in rows],
            limits=(0.5, len(rows) + 0.5),
            expand=(0, 0),
        )
        + p9.labs(x=VALUE, y="")
        + titles(
            title,
            f"Points: estimates; lines: {_level(results)} intervals"
            + ("; black bars: the truth, which no estimate used" if published["truth"].notna().any() else "")
            + ("; arrows: the interval goes on beyond the axis" if published["arrow"].any() else "")
            + ".",
            width,
            notes=[
                *notes,
                *(["Refused: the data are insufficient, no estimate is published."] if len(refused) else []),
            ],
        )
        + look(width, height)
        + p9.theme(panel_grid_major_y=p9.element_blank())
    )


def _without_empty(table: pd.DataFrame, panel: str) -> tuple[pd.DataFrame, list[str]]:
    """The table without the panels that have no estimate at all, and a note that names them."""
    published = table["estimate"].notna().groupby(table[panel], sort=False).any()
    empty = published.index[~published].tolist()
    by = {"policy": "Refused by every estimator", "estimator": "Refuses every policy"}[panel]
    return table[~table[panel].isin(empty)], [f"{by}: {', '.join(empty)}."] if empty else []


def _row_words(results: Sequence[ResultRecord]) -> dict[str, str]:
    """The names of policies and estimators as figures show them; results: the recommended one first."""
    words = {name: name for result in results for name in (*result.all_policies, result.name)}
    base = results[0].base_policy
    recommended = {results[0].name: f"{results[0].name} (recommended)"} if len(results) > 1 else {}
    return words | {base: f"{base} (logged)"} | recommended


def _axis_rows(table: pd.DataFrame) -> list[dict[str, float]]:
    """The rows of a table as `value_axis` reads them."""
    fields = {"estimate": "value", "ci_lower": "low", "ci_upper": "high", "truth": "truth"}
    return table[list(fields)].rename(columns=fields).to_dict("records")


def _clipped(published: pd.DataFrame, limits: tuple[float, float]) -> pd.DataFrame:
    """The published rows with the ends of their lines within the axis, and an arrow at the edge that an interval crosses."""
    low, high = limits
    left, right = published["ci_lower"] < low, published["ci_upper"] > high
    return published.assign(
        start=published["ci_lower"].clip(low, high),
        end=published["ci_upper"].clip(low, high),
        arrow=np.select([left & right, left, right], ["both", "left", "right"], ""),
    )


def _arrows(published: pd.DataFrame, limits: tuple[float, float], mapping: p9.aes) -> list[p9.layer]:
    """Arrows at the edges of the axis that intervals cross."""
    layers = []
    for side, edge, arrow, align in (("left", limits[0], "◂", "left"), ("right", limits[1], "▸", "right")):
        rows = published[published["arrow"].isin([side, "both"])].assign(edge=edge, arrow=arrow)
        if len(rows):
            layers.append(p9.geom_text(mapping, data=rows, color=INK, size=9, ha=align, inherit_aes=False))
    return layers


def _refused_rows(refused: pd.DataFrame, limits: tuple[float, float]) -> list[p9.layer]:
    """A grey row with the word "refused" and the truth, where it is known, for each refused estimate."""
    if not len(refused):
        return []
    words = ["refused" if math.isnan(truth) else f"refused (truth {truth:.3f})" for truth in refused["truth"]]
    band = p9.aes(ymin="at - 0.38", ymax="at + 0.38")
    return [
        p9.geom_rect(band, data=refused, xmin=limits[0], xmax=limits[1], fill=PALE, inherit_aes=False),
        p9.geom_text(
            p9.aes(y="at", label="word"),
            data=refused.assign(word=words),
            x=sum(limits) / 2,
            size=8,
            color=GREY,
            fontstyle="italic",
            inherit_aes=False,
        ),
    ]


def _truth_marks(table: pd.DataFrame) -> list[p9.layer]:
    """Black bars at the true values, where they are known."""
    truths = table[table["truth"].notna()]
    if not len(truths):
        return []
    bar = p9.aes(x="truth", xend="truth", y="at - 0.36", yend="at + 0.36")
    return [p9.geom_segment(bar, data=truths, color=INK, size=1.3, inherit_aes=False)]


def comparison_heatmap(result: ResultRecord) -> p9.ggplot:
    """Differences between all pairs of published policies: row minus column."""
    title = "Differences between policies"
    refused = [policy for policy in result.all_policies if policy in result.refused]
    policies = [policy for policy in result.all_policies if policy not in refused]
    left_out = [f"Not compared, since {result.name} refuses them: {', '.join(refused)}."] if refused else []
    if len(policies) < 2:
        return message(title, " ".join(["There are no two published policies to compare.", *left_out]))
    count = len(policies)
    table = tidy.differences(result)
    table = table[table["row"].isin(policies) & table["column"].isin(policies)]
    table = table.assign(
        x=[policies.index(policy) + 1 for policy in table["column"]],
        y=[count - policies.index(policy) for policy in table["row"]],
    )
    computed, unknown = table[table["kind"] == "known"], table[table["kind"] == "unknown"]
    reach = max([LEAST_REACH, *computed["difference"].abs()])
    dark = computed["difference"].abs() > 0.8 * reach
    by_judge = computed["judge_only"] & ~computed["judge_only"].all()  # where all are, a sentence replaces the marks
    cells = zip(computed["difference"], computed["apart"], by_judge, strict=True)
    computed = computed.assign(text=[_difference_text(*cell) for cell in cells])
    numbered = count > MANY_CELLS
    rows = [name(one, ROW_WIDTH if numbered else CELL_WIDTH) for one in policies]
    columns = [str(k + 1) for k in range(count)] if numbered else rows
    rows = [f"{number}:  {one}" for number, one in zip(columns, rows, strict=True)] if numbered else rows
    side = max(0.52, 0.15 * max(text.count("\n") + 1 for text in rows) + 0.1)
    width = max(3.0 + max(side, 0.7) * 1.15 * count, 7.0)
    size = 8 if numbered else 9
    return (
        p9.ggplot(table, p9.aes("x", "y"))
        + p9.geom_tile(p9.aes(fill="difference"), data=computed, width=0.96, height=0.96)
        + p9.geom_tile(data=table[table["kind"] != "known"], fill=PALE, width=0.96, height=0.96)
        + p9.geom_text(p9.aes(label="text"), data=computed[~dark], color=INK, size=size)
        + p9.geom_text(p9.aes(label="text"), data=computed[dark], color="white", size=size)
        + p9.geom_text(data=unknown, label="unknown", color=GREY, size=size - 1.5, fontstyle="italic")
        + p9.scale_fill_gradient2(
            low=WORSE,
            mid=EVEN,
            high=BETTER,
            midpoint=0,
            limits=(-reach, reach),
            breaks=ticks(-reach, reach, most=4),
            name="difference",
        )
        + p9.scale_x_continuous(breaks=list(range(1, count + 1)), labels=columns, expand=(0, 0.06))
        + p9.scale_y_continuous(breaks=list(range(count, 0, -1)), labels=rows, expand=(0, 0.06))
        + p9.labs(x="minus this policy", y="this policy")
        + titles(
            title,
            f"Estimates of {result.name}: the policy of the row minus that of the column. Blue, +: the row's is better. "
            + _significance(computed),
            width,
            notes=left_out,
        )
        + look(width, 2.4 + side * count)
        + p9.theme(panel_grid_major=p9.element_blank(), legend_key_width=90, legend_key_height=10)
    )


def _significance(computed: pd.DataFrame) -> str:
    """What the marks of the cells mean; only those that there are."""
    if computed["judge_only"].all():
        return "All differences are based on judge scores alone, so that no significance is claimed."
    star = "Star: significant, the interval that is corrected for the number of comparisons excludes zero. "
    judge = "†: based on judge scores alone, so that no significance is claimed. "
    text = judge if computed["judge_only"].any() else ""
    return star + text if computed["apart"].any() else f"{text}No difference is significant."


def _difference_text(value: float, apart: bool, judge_only: bool) -> str:
    """Text of a cell: the difference, with a star where it is significant and a dagger where it rests on the judge alone."""
    text = f"{value:+.3f}" if abs(value) >= 0.0005 else "0.000"
    return f"{text}{'*' if apart else '†' if judge_only else ''}".replace("-", "−")


def sweep(results: Mapping[str, Sequence[ResultRecord]], truth: Mapping[str, float] | None = None) -> p9.ggplot:
    """Estimates by coverage and estimator, one panel per policy that is published anywhere."""
    title = "Policy values by share of labelled prompts"
    table = tidy.over_coverages(results, truth)
    table, notes = _without_empty(table, "policy")
    if not len(table):
        return message(title, " ".join(["No estimate is published.", *notes]))
    coverages, policies, estimators = list(results), distinct(table["policy"]), distinct(table["estimator"])
    shift = 0.8 * ((np.arange(len(estimators)) + 0.5) / len(estimators) - 0.5)
    at = [coverages.index(row.coverage) + shift[estimators.index(row.estimator)] for row in table.itertuples()]
    table = in_order(in_order(table.assign(at=at), "policy", policies), "estimator", estimators)
    low, high = value_axis.limits(_axis_rows(table))
    published, refused = _clipped(table[table["estimate"].notna()], (low, high)), table[table["level"] == "refuse"]
    strip = 0.10 * (high - low) if len(refused) else 0.0
    edge, values = low - strip, ticks(low, high)
    columns = min(len(policies), 3 if len(policies) > 6 else 2)
    width = max(1.2 + columns * max(3.0, 0.5 + 0.075 * len(coverages) * len(estimators)), 6.5)
    truths = table[["policy", "truth"]].drop_duplicates().dropna()
    panel_texts = {policy: name(policy, 38) for policy in policies}
    band = in_order(pd.DataFrame({"policy": policies, "y": edge + strip / 2}), "policy", policies)
    span = (-0.5, len(coverages) - 0.5)
    labels = [name(estimator, 26) for estimator in estimators]
    return (
        p9.ggplot(table, p9.aes("at", color="estimator", shape="estimator"))
        + p9.facet_wrap("policy", ncol=columns, scales="free", labeller=panel_titles(panel_texts))
        + p9.geom_rect(data=band, xmin=span[0], xmax=span[1], ymin=edge, ymax=low, fill=PALE, inherit_aes=False)
        + p9.geom_vline(xintercept=[k + 0.5 for k in range(len(coverages) - 1)], color="#D0D0D0", size=0.5)
        + p9.geom_hline(p9.aes(yintercept="truth"), data=truths, color=INK, size=0.9)
        + p9.geom_linerange(p9.aes(ymin="start", ymax="end"), data=published, size=0.7)
        + p9.geom_point(p9.aes(y="estimate"), data=published, size=1.9)
        + p9.geom_point(data=refused, y=edge + strip / 2, size=1.9, fill="white", show_legend=False)
        + p9.scale_color_manual(theme.cycle(theme.CYCLE, len(estimators)), limits=estimators, labels=labels)
        + p9.scale_shape_manual(theme.cycle(theme.SHAPES, len(estimators)), limits=estimators, labels=labels)
        + p9.scale_x_continuous(breaks=list(range(len(coverages))), labels=coverages, limits=span, expand=(0, 0))
        + p9.scale_y_continuous(
            breaks=[*([edge + strip / 2] if strip else []), *values],
            labels=[*(["refused"] if strip else []), *plain(values)],
            limits=(edge, high),
            expand=(0, 0),
        )
        + p9.labs(x="share of prompts with an oracle label", y="policy value", color="", shape="")
        + titles(
            title,
            f"Points: estimates; lines: {_level(results[coverages[0]])} intervals"
            + ("; black line: the truth" if len(truths) else "")
            + ("; lines to the edge: the interval goes on beyond the axis" if published["arrow"].any() else "")
            + ("; hollow marks in the grey band: refused, no estimate" if len(refused) else "")
            + ".",
            width,
            notes=notes,
        )
        + look(width, 2.0 + math.ceil(len(policies) / columns) * (2.1 + 0.15 * theme.lines(policies, 38)))
        + p9.theme(panel_grid_major_x=p9.element_blank())
    )


def _level(results: Sequence[ResultRecord]) -> str:
    """Confidence level of the intervals, in words if estimators differ."""
    levels = {result.document["metadata"]["alpha"] for result in results}
    return f"{100 * (1 - levels.pop()):g} %" if len(levels) == 1 else "its own"
