"""Theme of figures: colours and shapes that the colour-blind can distinguish, sizes that grow with the number of policies.

Every distinction has a colour and also a shape, a hatching or a word, so that it is visible to the colour-blind and in grey
print. Names of policies are data: they are wrapped, and none of their characters is a command.

Colours: Okabe & Ito (2008), "Color Universal Design", with black for the truth and grey for refused policies.
"""

from __future__ import annotations

import io
import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import plotnine as p9

from arena_cje.files import write_bytes
from arena_cje.results import line_breaks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, HATCH, PALE, GRID = "#1A1A1A", "#6B6B6B", "#CFCFCF", "#EDEDED", "#E4E4E4"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK)  # the yellow of the palette is too pale on white
SHAPES = ("o", "s", "^", "D", "v", "<", ">", "p", "*", "h", "d", "8")  # all have a hollow form

DPI = 150
NAME_WIDTH = line_breaks.WIDTH  # characters of a policy name per line
INCH = 13.0  # characters of a subtitle per inch
CAPTION_INCH = 14.5


def name(text: str, width: int = NAME_WIDTH) -> str:
    """A name in lines of at most `width` characters, with dollar signs escaped so that none begins a formula."""
    return "\n".join(line_breaks.wrapped(text, width)).replace("$", r"\$")


def lines(texts: Sequence[str], width: int = NAME_WIDTH) -> int:
    """Largest number of lines of one of the names."""
    return max((len(line_breaks.wrapped(text, width)) for text in texts), default=1)


def cycle(values: Sequence[str], count: int) -> list[str]:
    """`count` values, repeated from the start if there are fewer."""
    return [values[k % len(values)] for k in range(count)]


def look(width: float, height: float) -> p9.theme:
    """The common theme, for a figure of this size in inches."""
    return p9.theme_minimal(base_size=10, base_family="DejaVu Sans") + p9.theme(
        figure_size=(width, height),
        dpi=DPI,
        plot_title=p9.element_text(size=13, weight="bold", ha="left", color=INK),
        plot_subtitle=p9.element_text(size=9, ha="left", color=INK, linespacing=1.35),
        plot_caption=p9.element_text(size=8, ha="left", color=GREY, linespacing=1.35),
        plot_title_position="plot",
        plot_caption_position="plot",
        plot_background=p9.element_rect(fill="white", color="white"),
        plot_margin=0.015,
        panel_spacing_y=0.03,
        panel_grid_major=p9.element_line(color=GRID, size=0.5),
        panel_grid_minor=p9.element_blank(),
        panel_border=p9.element_rect(color="#BDBDBD", fill=None, size=0.6),
        axis_text=p9.element_text(color=INK, size=8.5),
        axis_title=p9.element_text(color=INK, size=9.5),
        strip_text=p9.element_text(color=INK, size=9, linespacing=1.3, va="bottom"),
        legend_position="bottom",
        legend_box_spacing=0.02,
        legend_title=p9.element_text(size=9, color=INK),
        legend_text=p9.element_text(size=8.5, color=INK),
    )


def titles(title: str, explanation: str, width: float, *, notes: Sequence[str] = ()) -> p9.labs:
    """Title, subtitle (how to read the figure) and caption (notes), wrapped to a width in inches."""
    texts = {"title": "\n".join(textwrap.wrap(title, int(width * 9.5)))}
    texts["subtitle"] = "\n".join(textwrap.wrap(explanation, int(width * INCH)))
    if notes:
        texts["caption"] = "\n".join(line for note in notes for line in textwrap.wrap(note, int(width * CAPTION_INCH)))
    return p9.labs(**{kind: text.replace("$", r"\$") for kind, text in texts.items()})


def hatching(x: tuple[float, float], y: float, half: float, strokes: int) -> list[dict[str, float]]:
    """Oblique segments that hatch the band of height 2 `half` around y."""
    step = (x[1] - x[0]) / strokes
    starts = x[0] + step * np.arange(strokes)
    return [{"x": at, "xend": at + step / 2, "y": y - half, "yend": y + half} for at in starts.tolist()]


def message(title: str, text: str) -> p9.ggplot:
    """A figure with a text instead of a plot."""
    import pandas as pd

    width, height = 6.5, 2.2
    frame = pd.DataFrame({"x": [0.0], "y": [0.0], "text": [name(text, 70)]})
    return (
        p9.ggplot(frame, p9.aes("x", "y"))
        + p9.geom_text(p9.aes(label="text"), size=10, color=GREY)
        + titles(title, "", width)
        + look(width, height)
        + p9.theme(axis_text=p9.element_blank(), axis_title=p9.element_blank(), panel_grid_major=p9.element_blank())
    )


def in_order(frame: pd.DataFrame, column: str, levels: Sequence[str]) -> pd.DataFrame:
    """The frame with a categorical column in the order of `levels`."""
    import pandas as pd

    return frame.assign(**{column: pd.Categorical(frame[column], list(dict.fromkeys(levels)), ordered=True)})


def distinct(values: pd.Series) -> list[str]:
    """The distinct values in order of appearance."""
    return list(dict.fromkeys(values))


def panel_titles(texts: Mapping[str, str]) -> Callable[[str], str]:
    """A labeller that replaces the key of a panel by its text."""
    return p9.as_labeller(lambda key: texts[key])


def padded(values: np.ndarray) -> tuple[float, float]:
    """Range of the values with a margin at both ends."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.05 * (high - low) or 0.05
    return low - room, high + room


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values within a range, in steps of which at most `most` fit."""
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0)
    step = next((s for s in steps if (high - low) / s <= most), high - low)
    return (step * np.arange(math.ceil(low / step), math.floor(high / step) + 1)).tolist()


def percent(values: Sequence[float]) -> list[str]:
    """Axis labels of shares, in percent."""
    return [f"{100 * value:g} %" for value in values]


def plain(values: Sequence[float]) -> list[str]:
    """Axis labels of values, with four digits."""
    return [f"{value + 0.0:.4g}" for value in values]


def png(figure: p9.ggplot) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Expected: letters that the font lacks, lines of one point, text beyond an edge.
        warnings.simplefilter("ignore")
        figure.save(buffer, format="png", verbose=False, metadata={"Software": None}, limitsize=False)
    return buffer.getvalue()


def save(figure: p9.ggplot, path: str | Path) -> None:
    """Write the figure as a PNG file, atomically."""
    write_bytes(path, png(figure))
