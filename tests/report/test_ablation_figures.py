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

SEPARATE_POLICIES = ["unhelpful"]


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    chosen = settings({name: (name, {}) for name in ("direct", "snips")}, Switches())
    blocks = [
        run_block(Simulated(WORLDS["arena"]), Block(n, 0, 2), (0.2, 0.5), chosen, Thresholds())
        for n in (60, 100, 120, 150)
    ]
    return summary.summarise(pl.concat(blocks), SEPARATE_POLICIES)


def test_there_is_a_figure_for_each_target():
    assert tuple(ablation_figures.FIGURES) == ABLATION_PLOTS


@pytest.mark.parametrize("name", ABLATION_PLOTS)
def test_figures_can_be_drawn(table, name):
    assert theme.png(ablation_figures.FIGURES[name](table, SEPARATE_POLICIES)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "column"), [("errors", "rmse_debiased"), ("coverage", "covered_published"), ("ranking", "pairwise")]
)
def test_every_dot_has_the_value_of_its_row_in_the_summary(table, name, column):
    dots = ablation_figures.FIGURES[name](table, SEPARATE_POLICIES).data
    rows = table.filter((pl.col("policies") != "unhelpful") & pl.col(column).is_not_null())
    np.testing.assert_array_equal(dots["value"], rows[column])


def test_shares_of_each_bar_sum_to_one(table):
    bars = ablation_figures.refusals(table, SEPARATE_POLICIES).data
    np.testing.assert_allclose(bars.groupby(["policies", "setting"], observed=True)["share"].sum(), 1)


def test_the_ranking_figure_states_that_no_two_truths_differ(table):
    alike = table.with_columns(pl.lit(None, pl.Float64).alias("pairwise"))
    assert "no two truths" in " ".join(
        ablation_figures.ranking(alike, SEPARATE_POLICIES).data["text"].str.replace("\n", " ")
    )
