"""Figures show the published numbers of results and no refused one; a result in a notebook has its own figures and tables."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import polars as pl
import pytest
from matplotlib import image, pyplot
from matplotlib.text import Text

import arena_cje
from arena_cje import simulate
from arena_cje.errors import UserError
from arena_cje.report import dashboard_figures, figures, theme, tidy, value_axis, weight_bins
from arena_cje.results import notebook
from arena_cje.results.result import write
from arena_cje.simulate import Target, World
from own_data import write_world
from workflow_run import CONFIG, Run, write_prompts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arena_cje.estimation.records import Draws, Logged
    from arena_cje.results.result import Result

LONG_NAME = "a policy whose name takes sixty characters, more or less, ok"
HOSTILE = "<script>alert('x')</script>_{{7*7}}_$\\frac{1}{0}$_%s_\n"
TARGETS = {"better": Target(0.4, 0.3), "clone": Target(), "unhelpful": Target(-4.0, 4.0)}
TWELVE_TARGETS = {LONG_NAME: Target(0.2), HOSTILE: Target(0.1, 0.2)} | {
    f"policy_{k}": Target(0.05 * k, 0.2) for k in range(10)
}


@dataclass(frozen=True)
class Case:
    """A data set, its results, and the true values for the figures."""

    logged: Logged
    draws: dict[str, Draws]
    results: list[Result]
    truth: dict[str, float] | None


def frames(logged: Logged, draws: dict[str, Draws]) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    """Records as frames in the CJE format."""
    rows = []
    for i, prompt_id in enumerate(logged.prompt_id.tolist()):
        ratio, label = logged.log_ratio[i].tolist(), float(logged.oracle_label[i])
        scored = {
            policy: None if np.isnan(value) else -900.0 + value
            for policy, value in zip(logged.policies, ratio, strict=True)
        }
        rows.append(
            {"prompt_id": prompt_id, "prompt": "p", "response": f"r{i}", "base_policy_logprob": -900.0}
            | {"target_policy_logprobs": scored, "judge_score": float(logged.judge_score[i])}
            | {"oracle_label": None if np.isnan(label) else label}
        )
    draw_frames = {
        policy: pl.DataFrame({"prompt_id": logged.prompt_id.tolist(), "judge_score": source.judge_score[:, 0].tolist()})
        for policy, source in draws.items()
    }
    return pl.DataFrame(rows, infer_schema_length=None), draw_frames


def case(
    targets: dict[str, Target],
    estimators=("calibrated-ips", "direct"),
    *,
    n=150,
    truth=True,
    world=None,
    with_draws=True,
    **options,
) -> Case:
    """The results of simulated data."""
    logged, draws, values = simulate.draw(replace(world or World(coverage=0.4), targets=targets), n, 1)
    rows, of_draws = frames(logged, draws)
    results = [arena_cje.analyze(rows, of_draws if with_draws else None, name, **options) for name in estimators]
    return Case(logged, draws if with_draws else {}, results, values if truth else None)


def all_refused(targets: dict[str, Target]) -> Case:
    return case(targets, thresholds={"labels_refuse": 10_000})


CASES = {
    "one refused": lambda: case(TARGETS, n=400),
    "two policies": lambda: case({"better": Target(0.4)}, truth=False),
    "twelve policies": lambda: case(TWELVE_TARGETS),
    "all refused": lambda: all_refused(TARGETS),
    "all refused, no truth": lambda: replace(all_refused(TARGETS), truth=None),
    "one label": lambda: case(TARGETS, world=World(coverage=1 / 150), rewards="judge"),
    "full coverage": lambda: case(TARGETS, world=World(coverage=1.0)),
    "no draws": lambda: case(TARGETS, ("snips",), with_draws=False),
    "few scores": lambda: case({"better": Target(0.3)}, world=World(coverage=0.5, levels=simulate.ARENA_LEVELS)),
    "two-stage": lambda: case({"better": Target(0.3)}, ("snips",), world=World(coverage=0.5), calibration="two_stage"),
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {name: make() for name, make in CASES.items()}


@pytest.fixture(scope="module")
def refusal_case(cases) -> Case:
    return cases["one refused"]


DRAW_FIGURE = {
    "policy_estimates": lambda source: figures.policy_estimates(source.results, source.truth),
    "weight_distributions": lambda source: figures.weight_distributions(source.logged),
    "calibration_curve": lambda source: figures.calibration_curve(source.results[0], source.logged),
    "comparison_heatmap": lambda source: figures.comparison_heatmap(source.results[0]),
    "judge_distributions": lambda source: figures.judge_distributions(source.logged, source.draws),
    "sweep": lambda source: figures.sweep({"0.1": source.results, "0.25": source.results}, source.truth),
}
ESTIMATE_FIGURES = ("policy_estimates", "comparison_heatmap", "sweep")
FIGURES_OF_CASE = dict.fromkeys(CASES, tuple(DRAW_FIGURE)) | {
    "all refused": ESTIMATE_FIGURES,
    "all refused, no truth": ("policy_estimates", "sweep"),
    "one label": ("calibration_curve",),
    "full coverage": ("calibration_curve",),
    "no draws": ("judge_distributions",),
    "few scores": ("judge_distributions", "calibration_curve"),
    "two-stage": ("calibration_curve",),
}


def texts(figure) -> list[str]:
    """All visible text of a figure, which is rendered for that."""
    canvas_figure = figure.draw()
    try:
        canvas_figure.canvas.draw()
        return [text.get_text() for text in canvas_figure.findobj(Text) if text.get_visible()]
    finally:
        pyplot.close(canvas_figure)


def tables(figure) -> Iterator[pd.DataFrame]:
    """The data of a figure and of its layers."""
    frames_of_layers = (figure.data, *(layer._data for layer in figure.layers))
    yield from (data for data in frames_of_layers if isinstance(data, pd.DataFrame))


def refused_numbers(result: Result) -> list[float]:
    return [
        number
        for estimate in result.refused.values()
        for number in (estimate["estimate"], estimate["se"], *estimate["confidence_interval"])
        if number not in (None, 0, 1)  # an interval may end at the bounds, which other numbers are, too
    ]


# Properties of every figure


@pytest.mark.parametrize("name", CASES)
def test_every_figure_renders(name, cases):
    for figure in FIGURES_OF_CASE[name]:
        pixels = image.imread(io.BytesIO(theme.png(DRAW_FIGURE[figure](cases[name]))))[..., :3]
        height, width = pixels.shape[:2]
        assert (pixels < 0.5).any(axis=2).mean() > 0.002, figure
        assert height < 6000 and width < 3600, figure
        # Nothing is cut off: the outermost pixels are white.
        assert all((edge > 0.99).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])), figure


def test_no_figure_holds_a_refused_number(refusal_case, cases):
    for source in (refusal_case, cases["all refused"]):
        numbers = [number for result in source.results for number in refused_numbers(result)]
        assert numbers
        for figure in ESTIMATE_FIGURES:
            plot = DRAW_FIGURE[figure](source)
            values = np.concatenate([t.select_dtypes("number").to_numpy().ravel() for t in tables(plot)])
            assert not np.isin(numbers, values).any(), figure
            words = " ".join(texts(plot))
            assert not [number for number in numbers if f"{number:.3f}" in words], figure


def test_a_refused_policy_is_shown_or_named_as_refused(refusal_case):
    figure_words = {figure: texts(DRAW_FIGURE[figure](refusal_case)) for figure in ESTIMATE_FIGURES}
    refusals = [word for word in figure_words["policy_estimates"] if word.startswith("refused (truth")]
    assert len(refusals) == sum(len(result.refused) for result in refusal_case.results) == 2
    assert "unhelpful" in figure_words["policy_estimates"]
    # Without a single estimate of it there is no row, column or panel, but a sentence.
    assert any(
        "Not compared, since calibrated-ips refuses them: unhelpful." in text
        for text in figure_words["comparison_heatmap"]
    )
    assert any("Refused by every estimator: unhelpful." in text for text in figure_words["sweep"])
    for figure in ("comparison_heatmap", "sweep"):
        assert "unhelpful" not in figure_words[figure] and "refused" not in figure_words[figure]


def test_hostile_names_are_shown_as_text(cases):
    words = " ".join(texts(DRAW_FIGURE["policy_estimates"](cases["twelve policies"])).__str__().split())
    for piece in ("<script>alert(", "{{7*7}}", r"\$"):
        assert piece in words


@pytest.mark.parametrize("text", [LONG_NAME, HOSTILE, "x" * 60, "a", "under_score_" * 5, "$", ""])
def test_wrapping_keeps_every_character_within_the_width(text):
    wrapped = theme.name(text, 20)
    assert max(len(line.replace(r"\$", "$")) for line in wrapped.split("\n")) <= 20
    assert "".join(wrapped.replace(r"\$", "$").split()) == "".join(text.split())


def test_drawing_a_figure_twice_gives_the_same_bytes(refusal_case):
    for figure in ("calibration_curve", "policy_estimates"):
        assert theme.png(DRAW_FIGURE[figure](refusal_case)) == theme.png(DRAW_FIGURE[figure](refusal_case))


def test_importing_results_loads_neither_pandas_nor_plotting_libraries():
    code = "import sys, arena_cje.results; print([m for m in ('plotnine', 'pandas', 'altair') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Single figures


def test_estimates_are_those_of_the_results(refusal_case):
    table = tidy.estimates(refusal_case.results, refusal_case.truth).set_index(["estimator", "policy"])
    for result in refusal_case.results:
        for k, policy in enumerate(result.policies):
            row = table.loc[(result.name, policy)]
            assert row["estimate"] == pytest.approx(result.estimates[k], nan_ok=True)
            assert row[["ci_lower", "ci_upper"]].tolist() == pytest.approx(
                result.confidence_intervals[k].tolist(), nan_ok=True
            )
            assert row["level"] == result.verdicts[policy].level
            assert row["truth"] == refusal_case.truth[policy]
    refused = table[table["level"] == "refuse"]
    assert len(refused) and refused[["estimate", "ci_lower", "ci_upper"]].isna().all(axis=None)
    assert table["truth"].notna().all()
    assert tidy.estimates(refusal_case.results)["truth"].isna().all()
    assert table.loc["direct"].index.tolist() == ["base", *TARGETS]


def test_the_axis_of_values_does_not_reveal_a_refused_value(refusal_case):
    """Limits come from what is published: a range that makes room for the refused number would reveal it."""
    hidden = case(TARGETS, n=400, truth=False)
    limits = figures.policy_estimates(hidden.results).scales.get_scales("x").limits
    intervals = tidy.estimates(hidden.results)[["ci_lower", "ci_upper"]].stack()
    assert limits[0] > intervals.min() - 0.11 and limits[1] < intervals.max() + 0.11


def test_the_sweep_has_each_estimate_at_its_coverage(refusal_case):
    other = case(TARGETS, n=400, oracle_coverage=0.2)
    table = tidy.over_coverages({"0.2": other.results, "0.4": refusal_case.results}, refusal_case.truth)
    row = table[(table["coverage"] == "0.2") & (table["estimator"] == "direct") & (table["policy"] == "better")]
    assert row["estimate"].item() == other.results[1].estimates[0] != refusal_case.results[1].estimates[0]


def test_weights_are_counted_and_none_is_lost():
    log_ratio = np.full((1000, 3), 0.0)
    log_ratio[:, 1] = np.random.default_rng(0).normal(-8, 4, 1000)
    log_ratio[:5, 1], log_ratio[5:8, 1] = -np.inf, np.nan
    log_ratio[:, 2] = -np.inf
    some = simulate.draw(World({"clone": Target(), "far": Target(), "never": Target()}), 1000, 1)[0]
    bars, panels = tidy.weights(replace(some, log_ratio=log_ratio))
    clone, far, never = panels
    assert clone.all_one and clone.ess_share == pytest.approx(1)
    row = bars[bars["policy"] == "clone"]
    assert row["share"].tolist() == [1.0] and row["left"].item() < 0 < row["right"].item()
    weight = np.exp(log_ratio[8:, 1])
    weight = np.concatenate([np.zeros(5), weight]) / weight.sum() * 997
    assert (far.n, far.n_unscored, far.n_zero) == (997, 3, 5)
    assert far.ess_share == pytest.approx(weight.sum() ** 2 / (997 * (weight**2).sum()))
    assert (far.n_above_100, far.n_below_0_01) == (np.sum(weight > 100), np.sum(weight < 0.01))
    assert far.max_weight == pytest.approx(weight.max()) and (clone.n_equal, far.n_equal) == (1000, 0)
    mine = bars[bars["policy"] == "far"]
    assert mine["share"].sum() == pytest.approx(1)
    lowest = mine.loc[mine["left"].idxmin()]
    assert lowest["share"] >= 5 / 997 and lowest["left"] < weight_bins.LOWEST < lowest["right"]
    for at in (-2.0, 0.0, 1.0):  # every weight is in the bar over it
        inside = mine[mine["right"] <= at]["share"].sum(), mine[mine["left"] < at]["share"].sum()
        share = np.mean(np.log10(np.maximum(weight, 1e-6)) < at)
        assert inside[0] - 1e-9 <= share <= inside[1] + 1e-9
    assert (never.n, never.impossible) == (0, 1000)


def test_the_caption_explains_lines_at_extreme_weights_only_where_they_are_drawn(cases):
    far, near = (
        " ".join(texts(DRAW_FIGURE["weight_distributions"](cases[name]))) for name in ("one refused", "two policies")
    )
    assert "Dashed: weights of 0.01 and 100." in " ".join(far.split())
    assert "Dashed" not in near
    assert "every weight is exactly 1" in far
    assert "above 100: " in far and "below 0.01: " in far  # each direction has its own count


def test_every_panel_of_weights_has_ticks(cases):
    """Also a panel above an empty cell of the grid."""
    figure = DRAW_FIGURE["weight_distributions"](cases["one refused"]).draw()
    try:
        panels = [axes for axes in figure.axes if axes.get_visible()]
        assert len(panels) == 3
        assert all(len([t for t in axes.get_xticklabels() if t.get_visible() and t.get_text()]) >= 3 for axes in panels)
    finally:
        pyplot.close(figure)


def test_png_and_dashboard_have_the_same_histogram(refusal_case):
    bars, _ = tidy.weights(refusal_case.logged)
    log_mean = np.log(np.exp(refusal_case.logged.log_ratio).mean(axis=0))
    figure = dashboard_figures.weights(refusal_case.logged.policies, refusal_case.logged.log_ratio, log_mean)
    for policy in refusal_case.logged.policies:
        mine = bars[bars["policy"] == policy]
        rows = [row for row in figure.rows["bins"] if row["policy"] == policy]
        assert [row["share"] for row in rows] == pytest.approx(mine["share"].tolist())
        assert np.log10([row["low"] for row in rows]) == pytest.approx(mine["left"].to_numpy(), abs=1e-3)


def test_zeros_and_tiny_weights_are_in_the_first_bin_and_equal_policies_in_one():
    first, second = weight_bins.weight_bins([np.array([-np.inf, np.nan, 0.0, 1e-12, -100.0]), np.zeros(3)])
    assert [one.n for one in first] == [2, 2]
    assert first[0].low < weight_bins.LOWEST < first[0].high and first[1].low < 0 < first[1].high
    assert [one.n for one in second] == [3]


def row(value, half, truth=None):
    return {"value": value, "low": value - half, "high": value + half, "truth": truth}


def test_one_wide_interval_does_not_stretch_the_axis():
    narrow = [row(0.6, 0.02), row(0.7, 0.03)]
    limits = value_axis.limits([*narrow, row(0.65, 0.6)])
    assert limits[0] > 0.4 and limits[1] < 0.9
    assert value_axis.limits([row(0.5, 0.3), row(0.6, 0.4)]) == pytest.approx((0.16, 1.04))  # all wide: all is shown
    far = [*narrow, {"value": None, "low": None, "high": None, "truth": 0.05}]
    assert value_axis.limits(far) == value_axis.limits(narrow)  # the truth of a refused policy is written, not drawn
    assert value_axis.limits([*narrow, row(0.1, 0.02)])[0] < 0.1  # an estimate is always in range
    assert np.ptp(value_axis.limits([row(0.6, 0.001)])) == pytest.approx(value_axis.LEAST_SPAN)
    assert value_axis.limits([]) == pytest.approx((-0.05, 1.05))


def test_an_interval_beyond_the_axis_has_an_arrow(refusal_case):
    document = json.loads(refusal_case.results[1].to_json())
    document["confidence_intervals"][0] = [-3.0, 4.0]
    wide = replace(refusal_case.results[1], document=document)
    words = texts(figures.policy_estimates([refusal_case.results[1], wide, refusal_case.results[0]]))
    assert {"◂", "▸"} <= set(words)
    assert any("arrows: the interval goes on beyond the axis" in " ".join(text.split()) for text in words)


def test_legends_contain_only_the_verdicts_and_truths_that_are_drawn(refusal_case, cases):
    """The verdicts of the estimates that are drawn; no truth where none is known."""
    for source in (refusal_case, cases["two policies"]):
        words = texts(DRAW_FIGURE["policy_estimates"](source))
        levels = {
            result.verdicts[policy].level
            for result in source.results
            for policy in result.all_policies
            if policy not in result.refused
        }
        assert {word for word in words if word in ("ok", "caution")} == levels
        assert any("truth" in word for word in words) == (source.truth is not None)


def test_with_more_than_three_estimators_each_policy_has_a_panel(refusal_case):
    four = [
        refusal_case.results[0],
        *(replace(refusal_case.results[1], document=named(refusal_case.results[1], f"e{k}")) for k in range(3)),
    ]
    plot = figures.policy_estimates(four)
    assert plot.facet.vars == ["policy"]
    assert figures.policy_estimates(four[:3]).facet.vars == ["estimator"]
    assert f"{four[0].name} (recommended)" in texts(plot)


def named(result, name):
    """The document of a result as that of a variant."""
    document = json.loads(result.to_json())
    return {**document, "metadata": {**document["metadata"], "variant": name}}


def test_the_weight_figure_states_that_there_are_no_log_probabilities(refusal_case):
    bare = replace(refusal_case.logged, policies=(), log_ratio=np.empty((400, 0)))
    assert any("no log probabilities" in text for text in texts(figures.weight_distributions(bare)))


def test_the_calibration_figure_shows_the_calibration_of_the_result(refusal_case):
    table = tidy.calibration_of(refusal_case.results[0], refusal_case.logged)
    record = refusal_case.results[0].document["calibration"]
    assert table.curve["score"].tolist() == record["knots"] and table.curve["reward"].tolist() == record["values"]
    labelled = refusal_case.logged.labelled
    assert sorted(table.points["label"]) == sorted(refusal_case.logged.oracle_label[labelled])
    assert table.folds["fold"].nunique() == 5
    assert (table.bins["label"] * table.bins["n"]).sum() == pytest.approx(
        refusal_case.logged.oracle_label[labelled].sum()
    )
    assert table.bins["n"].sum() == labelled.sum()
    assert len(table.bins) == 10 and (table.bins["n"] == 16).all()
    assert (table.bins["low"] <= table.bins["label"]).all() and (table.bins["label"] <= table.bins["high"]).all()
    assert not table.all_labelled


def test_only_a_sample_of_many_labels_is_plotted():
    many = case({"better": Target(0.2)}, ("snips",), n=5000, world=World(coverage=0.5))
    plot = figures.calibration_curve(many.results[0], many.logged)
    dots = [table for table in tables(plot) if list(table.columns) == ["score", "label", "kind"]]
    assert [len(table) for table in dots] == [2000]
    assert dots[0]["label"].between(0, 1).all()  # shifted by chance, but not out of the range of labels
    assert "2000 of 2500 labelled responses" in texts(plot)
    assert len(tidy.calibration_of(many.results[0], many.logged).points) == 2500


def test_data_of_another_coverage_are_refused(refusal_case):
    fewer = refusal_case.logged.oracle_label.copy()
    fewer[np.flatnonzero(refusal_case.logged.labelled)[:40]] = np.nan
    with pytest.raises(UserError, match="has 120 labelled responses, the result was made from 160"):
        figures.calibration_curve(refusal_case.results[0], replace(refusal_case.logged, oracle_label=fewer))


def test_score_ranges_with_hardly_any_labels_are_sparse():
    score = np.linspace(0, 1, 101)
    labelled = np.concatenate([np.linspace(0.01, 0.38, 40), [0.95, 0.96, 0.97]])
    assert tidy.sparse_ranges(score, labelled).to_numpy() == pytest.approx(np.array([[0.4, 0.9]]))
    assert tidy.sparse_ranges(np.array([0.0, 1.0]), labelled).to_numpy().size == 0  # no score lies between the two


def test_full_coverage_and_no_calibration_are_stated(cases):
    full = " ".join(" ".join(texts(DRAW_FIGURE["calibration_curve"](cases["full coverage"]))).split())
    assert "Every logged response is labelled" in full
    none = " ".join(" ".join(texts(DRAW_FIGURE["calibration_curve"](cases["one label"]))).split())
    assert "does not calibrate judge scores" in none and "1 labelled response " in none
    assert "without one fold" in full and "without one fold" not in none


def test_differences_are_antisymmetric_and_those_of_the_comparisons(refusal_case):
    table = tidy.differences(refusal_case.results[0]).set_index(["row", "column"])
    for pair in refusal_case.results[0].comparisons().iter_rows(named=True):
        there, back = (table.loc[key] for key in ((pair["first"], pair["second"]), (pair["second"], pair["first"])))
        if pair["difference"] is None:
            assert there["kind"] == back["kind"] == "refused" and np.isnan(there["difference"]) and not there["apart"]
        else:
            assert there["difference"] == -back["difference"] == pair["difference"]
            assert there["apart"] == back["apart"] == pair["apart"]
    assert len(table) == 16
    assert table.loc[("unhelpful", "unhelpful"), "kind"] == "refused"
    assert table.loc[("clone", "clone"), "kind"] == "same"


@pytest.mark.parametrize(
    ("value", "apart", "judge_only", "text"),
    [(0.1234, True, False, "+0.123*"), (-0.05, False, True, "−0.050†"), (-0.0001, False, False, "0.000")],
)
def test_a_cell_shows_the_difference_and_its_marks(value, apart, judge_only, text):
    assert figures._difference_text(value, apart, judge_only) == text


def test_the_heat_map_explains_the_marks_that_it_has(refusal_case, cases):
    result = refusal_case.results[1]
    assert all(one["judge_only"] for one in result.comparisons().to_dicts() if one["difference"] is not None)
    words = " ".join(" ".join(texts(figures.comparison_heatmap(result))).split())
    assert "All differences are based on judge scores alone" in words and "†" not in words and "Star" not in words
    alone = " ".join(" ".join(texts(figures.comparison_heatmap(cases["all refused"].results[0]))).split())
    assert "There are no two published policies to compare" in alone


def test_few_distinct_scores_are_drawn_as_bars_at_these_scores(cases):
    source = cases["few scores"]
    judge_scores = tidy.judge_scores(source.logged, source.draws)
    assert judge_scores.discrete
    for policy, score in (("base", source.logged.judge_score), ("better", source.draws["better"].judge_score.ravel())):
        bars = judge_scores.bars[judge_scores.bars["policy"] == policy]
        at, count = np.unique(score, return_counts=True)
        assert ((bars["left"] + bars["right"]) / 2).to_numpy() == pytest.approx(at)
        assert bars["share"].to_numpy() == pytest.approx(count / len(score))
        assert judge_scores.means[policy] == pytest.approx(score.mean())
    assert (judge_scores.bars["right"].to_numpy()[:-1] <= judge_scores.bars["left"].to_numpy()[1:] + 1e-12)[
        :5
    ].all()  # apart


def test_many_distinct_scores_are_drawn_as_a_histogram_and_missing_ones_are_counted(refusal_case):
    score = refusal_case.draws["better"].judge_score.copy()
    score[:7] = np.nan
    scores = tidy.judge_scores(
        refusal_case.logged, {"better": replace(refusal_case.draws["better"], judge_score=score)}
    )
    assert not scores.discrete and scores.n_missing == {"base": 0, "better": 7} and scores.n["better"] == 393
    assert scores.bars.groupby("policy")["share"].sum().tolist() == pytest.approx([1, 1])
    figure_texts = texts(figures.judge_distributions(refusal_case.logged, {"better": refusal_case.draws["better"]}))
    assert any("No fresh draws of clone, unhelpful" in " ".join(text.split()) for text in figure_texts)


def test_draws_of_a_prompt_that_was_logged_twice_count_once():
    world = World({"better": Target(0.3)}, rows_per_prompt=(2,), coverage=0.5)
    logged, draws, _ = simulate.draw(world, 100, 1)
    assert tidy.judge_scores(logged, draws).n == {"base": 100, "better": 50}


# In a notebook


def test_a_loaded_result_draws_the_same_figures(refusal_case, tmp_path):
    path = tmp_path / "direct.json"
    write(refusal_case.results[1], path, tmp_path / "a.csv", tmp_path / "direct.influence.parquet")
    loaded = arena_cje.load(path)
    assert theme.png(loaded.plot_estimates(refusal_case.truth)) == theme.png(
        refusal_case.results[1].plot_estimates(refusal_case.truth)
    )
    rows, _ = frames(refusal_case.logged, refusal_case.draws)
    bars = [next(tables(loaded.plot_weight_diagnostics(logged))) for logged in (rows, refusal_case.logged)]
    assert bars[0].equals(bars[1])


def test_weights_have_a_status_and_its_reason(refusal_case):
    statuses = refusal_case.results[0].diagnose_weights()
    assert {policy: status.status for policy, status in statuses.items()} == {
        "better": "GOOD",
        "clone": "GOOD",
        "unhelpful": "CRITICAL",
    }
    assert statuses["clone"].issues == () and statuses["clone"].ess_share == pytest.approx(1)
    assert "low ESS" in statuses["unhelpful"].issues
    assert any(sentence.startswith("raw ESS") for sentence in statuses["unhelpful"].reasons)
    weight = np.exp(refusal_case.logged.log_ratio[:, 2])
    assert statuses["unhelpful"].mean_weight == pytest.approx(weight.mean())
    assert statuses["unhelpful"].n_below_0_001 == np.sum(weight / weight.mean() < 0.001)
    assert statuses["unhelpful"].clipped_mass == 0.0  # calibrated-ips clips nothing


def test_the_status_of_weights_does_not_depend_on_the_estimator(refusal_case):
    """`direct` uses no weights and the doubly robust family has milder verdicts on them; the status is of the weights alone."""
    rows, draw_frames = frames(refusal_case.logged, refusal_case.draws)
    for name in ("direct", "dr-cpo"):
        statuses = arena_cje.analyze(rows, draw_frames, name).diagnose_weights()
        assert [status.status for status in statuses.values()] == ["GOOD", "GOOD", "CRITICAL"]


@pytest.mark.parametrize("name", ["snips", "dr-cpo", "direct"])
def test_rows_without_a_log_ratio_are_counted_whatever_the_estimator(refusal_case, name):
    """A missing fresh draw leaves a row out of an estimate, and not out of the weights."""
    log_ratio = refusal_case.logged.log_ratio.copy()
    log_ratio[:7, 0] = np.nan
    rows, draw_frames = frames(replace(refusal_case.logged, log_ratio=log_ratio), refusal_case.draws)
    lacking = pl.col("prompt_id") == refusal_case.logged.prompt_id[9]
    draw_frames["clone"] = draw_frames["clone"].with_columns(judge_score=pl.when(~lacking).then("judge_score"))
    result = arena_cje.analyze(rows, draw_frames, name)
    statuses = result.diagnose_weights()
    assert statuses["better"].issues == ("7 rows left out",) and statuses["better"].n == 393
    assert statuses["better"].status == "GOOD"
    assert statuses["better"].reasons == ("7 of 400 rows have no log ratio, so they have no weight",)
    assert statuses["clone"].issues == statuses["clone"].reasons == ()
    assert "| GOOD     | 7 rows left out" in notebook.weight_table(result)


def test_the_status_of_weights_uses_the_thresholds_of_the_analysis(refusal_case):
    rows, _ = frames(refusal_case.logged, refusal_case.draws)
    share = refusal_case.results[0].diagnose_weights()["better"].ess_share
    moved = arena_cje.analyze(rows, None, "snips", thresholds={"ess_caution": share + 0.01})
    assert moved.diagnose_weights()["better"].status == "WARNING"
    assert moved.diagnose_weights()["better"].issues == ("moderate ESS",)


def test_clipped_mass_is_computed_from_the_data(refusal_case):
    rows, _ = frames(refusal_case.logged, refusal_case.draws)
    result = arena_cje.analyze(rows, None, "raw-ips", clip=5.0)
    weight = np.exp(refusal_case.logged.log_ratio[:, 2])
    weight /= weight.mean()
    assert result.diagnose_weights(rows)["unhelpful"].clipped_mass == pytest.approx(
        np.maximum(weight - 5, 0).sum() / weight.sum(), rel=1e-6
    )
    assert np.isnan(result.diagnose_weights()["unhelpful"].clipped_mass)  # unknown, not none
    assert result.diagnose_weights()["clone"].clipped_mass == 0.0


def test_a_policy_declared_the_same_as_the_base_must_have_weights_of_one(refusal_case):
    like = {"context": "m-helpful", "temperature": 1.0, "top_p": 1.0}
    other = like | {"context": "m-other"}
    provenance = {"policies": {"base": like, "clone": like, "better": like, "unhelpful": other}}
    rows, _ = frames(refusal_case.logged, refusal_case.draws)
    statuses = arena_cje.analyze(rows, None, "snips", provenance=provenance).diagnose_weights()
    assert (statuses["clone"].same_as_base, statuses["clone"].status) == (True, "GOOD")
    assert (statuses["better"].same_as_base, statuses["better"].status) == (False, "CRITICAL")
    assert any("all weights must be 1" in sentence for sentence in statuses["better"].reasons)
    assert statuses["unhelpful"].same_as_base is None
    assert refusal_case.results[0].diagnose_weights()["clone"].same_as_base is None


def test_the_table_of_weights_is_narrow_and_complete(cases):
    for name in ("one refused", "twelve policies"):
        lines = notebook.weight_table(cases[name].results[0]).splitlines()
        assert [part.strip() for part in lines[0].strip("|").split("|")] == list(notebook.WEIGHT_TITLES)
        assert max(len(line) for line in lines) <= 112
        assert len({len(line) for line in lines}) == 1
    table = notebook.weight_table(cases["one refused"].results[0])
    assert "| clone     | 100.0% | 1.000       | GOOD     | None" in table


def test_a_result_without_weights_has_no_weight_table(refusal_case):
    rows, draw_frames = frames(
        replace(refusal_case.logged, policies=(), log_ratio=np.empty((400, 0))), refusal_case.draws
    )
    result = arena_cje.analyze(rows.drop("target_policy_logprobs"), draw_frames, "direct")
    assert result.diagnose_weights() == {} and notebook.weight_table(result) == ""


class Reader(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_the_html_of_a_result_escapes_names_and_hides_refused_numbers(refusal_case, cases):
    page = Reader(cases["twelve policies"].results[0]._repr_html_())
    assert "script" not in page.tags and HOSTILE in page.texts
    result = refusal_case.results[0]
    page = Reader(result._repr_html_())
    published = [entry for entry in result.decision["policies"].values() if entry["difference"] is not None]
    assert page.tags.count("tr") == 1 + len(result.all_policies) + 1 + len(published)
    assert page.texts.count("refused") == len(result.refused) == 1
    text = " ".join(page.texts)
    assert f"{refusal_case.results[0].estimates[0]:.3f}" in text
    assert not [number for number in refused_numbers(refusal_case.results[0]) if f"{number:.3f}" in text]
    assert "refuse: unhelpful: " in text and "effective" in text


# In the workflow


def test_the_workflow_draws_figures_and_a_report_from_user_data(tmp_path):
    write_world(tmp_path)
    names = ["calibrated-ips", "direct"]
    run = Run(
        tmp_path,
        {"logged_data": "mine.jsonl", "fresh_draws": "draws", "coverages": ["0.1"], "estimators": names},
    )
    figure_paths = [f"results/coverage_0.1/plots/{figure}.png" for figure in figure_names()]
    over_all = ["results/plots/sweep.png", "results/planning/plan.png"]
    run.snakemake(*figure_paths, *over_all)
    for path in (*figure_paths, *over_all):
        assert image.imread(tmp_path / path).size > 0
    run.snakemake("--report", "report.html", *figure_paths, "results/plots/sweep.png")
    plan = json.loads(run.path("planning/plan.json").read_text())
    assert all(
        reason.startswith("none of its own responses has a label") for reason in plan["pilot"]["omitted"].values()
    )
    assert plan["audits"].keys() == plan["pilot"]["omitted"].keys() != set()
    page = (tmp_path / "report.html").read_text()
    assert all(f"{figure}.png" in page for figure in (*figure_names(), "sweep"))
    assert "at oracle coverage 0.1" in page and "coverage {coverage}" not in page
    assert not run.jobs(*figure_paths)  # nothing is drawn twice


def figure_names() -> tuple[str, ...]:
    return tuple(figure for figure in figures.__all__ if figure not in ("save", "sweep"))


def test_a_figure_runs_only_the_rules_that_it_needs(tmp_path, tiny_model):
    write_prompts(tmp_path / "prompts.jsonl", 24)
    (tmp_path / "other.txt").write_text("Answer with other words.")
    (tmp_path / "tiny.gguf").symlink_to(tiny_model)
    run = Run(tmp_path, json.loads(json.dumps(CONFIG)))
    rules = {
        figure: {job.split()[0] for job in run.jobs(f"results/coverage_0.25/plots/{figure}.png")}
        for figure in ("weight_distributions", "policy_estimates")
    }
    assert not {"fresh_draws", "validate"} & rules["weight_distributions"]
    assert not any(rule.startswith("estimate") for rule in rules["weight_distributions"])
    assert {"estimate", "estimate_without_draws", "validate", "plot_policy_estimates"} <= rules["policy_estimates"]
    run.config["estimators"], run.config["oracle"] = ["snips"], {"truth": "none"}
    alone = {job.split()[0] for job in run.jobs("results/coverage_0.25/plots/judge_distributions.png")}
    assert "fresh_draws" not in alone  # no draws are made for a figure's sake
    assert "validate" not in {job.split()[0] for job in run.jobs("results/coverage_0.25/plots/policy_estimates.png")}
