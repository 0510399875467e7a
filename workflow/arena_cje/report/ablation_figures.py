"""Figures of an ablation, from its summary (`arena_cje.ablation.summary`): a line a setting, a panel a number of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotnine as p9

from arena_cje.report import theme

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    import polars as pl

WIDTH = 9.0
LINE = 0.24  # inches of a setting
PANELS = 3  # side by side
SETTING_WIDTH = 34  # characters of a setting's name a line

# Outcomes of an estimate: name, description, colour.
FATES = (
    ("published", "published, and not far off", theme.BLUE),
    ("published_wrongly", "published, the truth more than a standard error outside its interval", theme.VERMILION),
    ("refused_rightly", "refused, and its interval would miss the truth", theme.GREEN),
    ("refused_wrongly", "refused, and its interval would hold the truth", theme.ORANGE),
)


def errors(summary: pl.DataFrame, apart: Sequence[str]) -> p9.ggplot:
    """Root mean square errors of all settings."""
    return _dots(
        _main(summary, apart, "rmse_debiased"),
        "Error by setting",
        "Root mean square error over seeds and target policies, without the truth's own error, on a scale of ratios. Refused "
        "numbers count, too.",
        "root mean square error",
        lambda values: p9.scale_y_log10(labels=theme.plain),
    )


def coverage(summary: pl.DataFrame, apart: Sequence[str]) -> p9.ggplot:
    """How often published intervals hold the truth."""
    return _dots(
        _main(summary, apart, "covered_published"),
        "How often published intervals hold the truth",
        "Share of the published intervals over seeds and target policies; the line is the level that they claim.",
        "coverage of published intervals",
        _percent_axis,
        line=0.95,
    )


def ranking(summary: pl.DataFrame, apart: Sequence[str]) -> p9.ggplot:
    """How often two policies are put in the right order."""
    return _dots(
        _main(summary, apart, "pairwise"),
        "How often two policies are in the right order",
        "Share of the pairs with different truths, the base policy among them, by all numbers, whether published or refused; the "
        "line is chance.",
        "pairs in the right order",
        _percent_axis,
        line=0.5,
    )


def refusals(summary: pl.DataFrame, apart: Sequence[str]) -> p9.ggplot:
    """What is refused, rightly and wrongly."""
    import pandas as pd

    frame = _plain(summary)
    rows = frame.groupby(["policies", "setting"], sort=False)[[name for name, *_ in FATES[1:]] + ["refused"]].mean()
    rows["published"] = 1 - rows["refused"] - rows["published_wrongly"]
    long = pd.concat([rows[name].rename("share").reset_index().assign(fate=words) for name, words, _ in FATES])
    long = theme.in_order(long, "fate", [words for _, words, _ in reversed(FATES)])
    long = theme.in_order(long, "policies", theme.distinct(frame["policies"]))
    settings = theme.distinct(frame["setting"])
    long = theme.in_order(long, "setting", settings[::-1])
    return (
        p9.ggplot(long, p9.aes("setting", "share", fill="fate"))
        + p9.geom_col(width=0.75)
        + p9.coord_flip()
        + p9.facet_wrap("policies", nrow=1)
        + p9.scale_fill_manual({words: colour for _, words, colour in FATES})
        + p9.scale_y_continuous(labels=theme.percent, expand=(0, 0))
        + p9.scale_x_discrete(labels=_names)
        + theme.titles(
            "What becomes of a number",
            "Shares over all numbers of prompts, coverages, seeds and target policies.",
            WIDTH,
        )
        + p9.labs(x="", y="share of the numbers", fill="")
        + _look(settings, legend_lines=4)
        + p9.guides(fill=p9.guide_legend(ncol=1, reverse=True))
        + p9.theme(panel_spacing_x=0.04, panel_grid_major_y=p9.element_blank())
    )


FIGURES: Mapping[str, Callable[[pl.DataFrame, Sequence[str]], p9.ggplot]] = {
    "errors": errors,
    "coverage": coverage,
    "ranking": ranking,
    "refusals": refusals,
}


def _plain(summary: pl.DataFrame) -> pd.DataFrame:
    """The summary as plotnine reads it."""
    import pandas as pd

    return pd.DataFrame(summary.to_dict(as_series=False))


def _main(summary: pl.DataFrame, apart: Sequence[str], column: str) -> pd.DataFrame:
    """The rows of the policies that are not apart, with a value of this column as `value`."""
    frame = _plain(summary)
    frame = frame[~frame["policies"].isin(list(apart))].assign(value=lambda rows: rows[column].astype(float))
    return frame[frame["value"] > 0] if column == "rmse_debiased" else frame.dropna(subset="value")


def _percent_axis(values: Sequence[float]) -> p9.scale_y_continuous:
    """An axis of shares with few marks, since panels stand side by side."""
    low, high = min(values), max(values)
    return p9.scale_y_continuous(labels=theme.percent, breaks=theme.ticks(low, high + 1e-9, most=4))


def _dots(
    frame: pd.DataFrame,
    title: str,
    explanation: str,
    axis: str,
    scale: Callable[[Sequence[float]], p9.scale_y_continuous],
    *,
    line: float | None = None,
) -> p9.ggplot:
    """A dot for each setting and coverage, in panels by number of prompts; the axes are flipped."""
    if frame.empty:
        return theme.message(
            title, "There is nothing to show: no two truths are known to differ, or nothing is published."
        )
    settings, sizes = theme.distinct(frame["setting"]), sorted(frame["n"].unique())
    coverages = sorted(frame["coverage"].unique())
    words = [f"{100 * share:g} %" for share in coverages]
    frame = frame.assign(
        share=frame["coverage"].map(dict(zip(coverages, words, strict=True))),
        panel=[f"n = {n}" for n in frame["n"]],
    )
    frame = theme.in_order(frame, "share", words[::-1])  # dodged dots are drawn from below
    frame = theme.in_order(frame, "panel", [f"n = {n}" for n in sizes])
    frame = theme.in_order(frame, "setting", settings[::-1])
    columns = min(len(sizes), PANELS)
    rows = -(-len(sizes) // columns)
    colours, shapes = (theme.cycle(values, len(words)) for values in (theme.CYCLE, theme.SHAPES))
    return (
        p9.ggplot(frame, p9.aes("setting", "value", color="share", shape="share"))
        + ([] if line is None else [p9.geom_hline(yintercept=line, linetype="dashed", color=theme.GREY)])
        + p9.geom_point(size=1.9, position=p9.position_dodge(width=0.7))
        + p9.coord_flip()
        + p9.facet_wrap("panel", ncol=columns)
        + p9.scale_color_manual(dict(zip(words, colours, strict=True)), breaks=words)
        + p9.scale_shape_manual(dict(zip(words, shapes, strict=True)), breaks=words)
        + scale([*frame["value"], *([] if line is None else [line])])
        + p9.scale_x_discrete(labels=_names)
        + theme.titles(title, explanation, WIDTH)
        + p9.labs(x="", y=axis, color="prompts with a label", shape="prompts with a label")
        + _look(settings, rows=rows, legend_lines=1)
        + p9.theme(panel_spacing_x=0.03)
    )


def _names(settings: Sequence[str]) -> list[str]:
    return [theme.name(setting, SETTING_WIDTH) for setting in settings]


def _look(settings: Sequence[str], *, rows: int = 1, legend_lines: int) -> p9.theme:
    lines = sum(theme.lines([setting], SETTING_WIDTH) for setting in settings)
    return theme.look(WIDTH, 1.3 + rows * (0.4 + LINE * lines) + 0.2 * legend_lines)
