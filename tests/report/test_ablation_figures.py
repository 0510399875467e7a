"""Figures of an ablation show what its summary has."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from arena_cje.ablation import summary
from arena_cje.ablation.grid import Block, Switches, settings
from arena_cje.ablation.populations import Simulated
from arena_cje.ablation.run import run_block
from arena_cje.ablation.worlds import WORLDS
from arena_cje.config.targets import ABLATION_PLOTS
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.report import ablation_figures, theme

APART = ["unhelpful"]


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    chosen = settings({name: (name, {}) for name in ("direct", "snips")}, Switches())
    blocks = [
        run_block(Simulated(WORLDS["arena"]), Block(n, 0, 2), (0.2, 0.5), chosen, Thresholds())
        for n in (60, 100, 120, 150)
    ]
    return summary.summarise(pl.concat(blocks), APART)


def test_there_is_a_figure_for_each_target():
    assert tuple(ablation_figures.FIGURES) == ABLATION_PLOTS


@pytest.mark.parametrize("name", ABLATION_PLOTS)
def test_figures_can_be_drawn(table, name):
    assert theme.png(ablation_figures.FIGURES[name](table, APART)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "column"), [("errors", "rmse_debiased"), ("coverage", "covered_published"), ("ranking", "pairwise")]
)
def test_a_dot_is_a_row_of_the_summary(table, name, column):
    dots = ablation_figures.FIGURES[name](table, APART).data
    rows = table.filter((pl.col("policies") != "unhelpful") & pl.col(column).is_not_null())
    np.testing.assert_array_equal(dots["value"], rows[column])


def test_a_bar_is_whole(table):
    bars = ablation_figures.refusals(table, APART).data
    np.testing.assert_allclose(bars.groupby(["policies", "setting"], observed=True)["share"].sum(), 1)


def test_without_a_pair_of_different_truths_the_figure_says_so(table):
    alike = table.with_columns(pl.lit(None, pl.Float64).alias("pairwise"))
    assert "no two truths" in " ".join(ablation_figures.ranking(alike, APART).data["text"].str.replace("\n", " "))
