"""Samples, masks and cells of an ablation: a coverage sets the number of labels, and no estimate uses the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from arena_cje import simulate
from arena_cje.ablation import summary
from arena_cje.ablation.grid import DISTRIBUTION, SCORE, Block, Setting, Switches, settings
from arena_cje.ablation.populations import Recorded, Simulated, as_read, masked
from arena_cje.ablation.run import COLUMNS, run_block, together
from arena_cje.ablation.worlds import WORLDS
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.errors import UserError
from arena_cje.evaluation.evaluate import Options, evaluate

COVERAGES = (0.1, 0.4)
ESTIMATORS = {name: (name, {}) for name in ("direct", "snips", "dr-cpo")}


BLOCK = Block(200, 0, 3)


def cells(population, block=BLOCK, chosen=None) -> pl.DataFrame:
    return run_block(population, block, COVERAGES, chosen or settings(ESTIMATORS, Switches()), Thresholds())


def world(**changes) -> simulate.World:
    return replace(WORLDS["healthy"], **changes)


@pytest.fixture(scope="module")
def healthy() -> pl.DataFrame:
    return cells(Simulated(world()))


def test_a_row_for_each_cell_and_policy(healthy):
    assert healthy.columns == list(COLUMNS)
    assert len(healthy) == 3 * len(COVERAGES) * len(ESTIMATORS) * 3  # policies: base, clone, better
    assert not healthy.select("n", "coverage", "seed", "setting", "policy").is_duplicated().any()


def test_a_higher_coverage_changes_the_labels_and_the_results(healthy):
    assert dict(healthy.group_by("coverage").agg(pl.col("n_labels").unique().first()).iter_rows()) == {0.1: 20, 0.4: 80}
    table = summary.summarise(healthy)
    assert table.filter(pl.col("coverage") == 0.4)["moved"].to_list() == [1.0] * 3
    assert table.filter(pl.col("coverage") == 0.1)["moved"].null_count() == 3
    assert summary.without_effect(table) == []


def test_a_setting_that_uses_no_label_is_reported_as_unaffected_by_coverage():
    chosen = settings({"direct": ("direct", {}), "naive": ("direct", {"rewards": "judge"})}, Switches())
    table = summary.summarise(cells(Simulated(world()), chosen=chosen))
    assert summary.without_effect(table) == ["naive"]


def test_a_cell_has_the_estimate_of_the_masked_sample():
    population = Simulated(world())
    logged, draws = masked(population.sample(200, 2), 0.4, 0.0)
    alone = evaluate("dr-cpo", logged, draws, Options(seed=2))
    shared = cells(population, Block(200, 2, 1)).filter(
        (pl.col("coverage") == 0.4) & (pl.col("setting") == "dr-cpo") & (pl.col("policy") == "better")
    )
    estimate = alone.estimates["better"]
    assert shared["estimate"].item() == estimate.value
    assert (shared["ci_lower"].item(), shared["ci_upper"].item()) == estimate.interval()


def test_at_full_coverage_the_rewards_are_the_labels():
    population = Simulated(world())
    chosen = settings({name: (name, {}) for name in ("calibrated-ips", "snips")}, Switches())
    rows = run_block(population, Block(200, 7, 1), [1.0], chosen, Thresholds()).filter(pl.col("policy") == "clone")
    mean_label = population.sample(200, 7).logged.oracle_label.mean()
    np.testing.assert_allclose(rows["estimate"], mean_label)  # the clone's weights are one


def test_a_seed_has_the_same_rows_in_a_block_of_its_own_and_among_others():
    parts = [cells(Simulated(world()), Block(200, seed, 1)) for seed in range(3)]
    whole = cells(Simulated(world()))
    assert pl.concat(parts).drop("seconds").equals(whole.drop("seconds"))


def test_a_higher_coverage_adds_labels_and_removes_none():
    sample = Simulated(world(rows_per_prompt=(2, 1))).sample(150, 0)
    few, many = (masked(sample, share, 0.0)[0].labelled for share in (0.2, 0.6))
    assert (many | ~few).all()
    assert len(np.unique(sample.code[few])) == round(0.2 * len(sample.order))
    by_prompt = [few[sample.code == prompt] for prompt in range(len(sample.order))]
    assert all(rows.all() or not rows.any() for rows in by_prompt)


def test_labels_of_targets_are_used_only_up_to_the_share_of_the_ablation():
    sample = Simulated(world(), target_labels=0.3).sample(100, 0)
    assert all(np.isnan(one.oracle_label).all() for one in masked(sample, 0.5, 0.0)[1].values())
    logged, draws = masked(sample, 0.5, 0.3)
    for one in draws.values():
        labelled = ~np.isnan(one.oracle_label[:, 0])
        assert labelled.sum() == 30
        assert logged.labelled[labelled].all()  # on prompts that the base has labels on


def recorded(n: int = 400, **changes) -> tuple[Recorded, dict[str, float]]:
    full = world(coverage=1.0, target_labels=1.0, **changes)
    logged, draws, truth = simulate.draw(full, n, 5)
    return Recorded.of(logged, draws), truth


def test_the_truth_of_a_data_set_is_its_mean_label():
    population, truth = recorded(4000)
    for policy, (value, se) in population.truth.items():
        labels = population.logged.oracle_label if policy == "base" else population.draws[policy].oracle_label
        assert value == pytest.approx(labels.mean())
        assert abs(value - truth[policy]) < 5 * np.hypot(se, labels.std() / np.sqrt(4000))


def test_other_true_values_change_no_estimate():
    population, _ = recorded()
    other = replace(population, truth=dict.fromkeys(population.truth, (0.123, 0.0)))
    columns = ["estimate", "se", "ci_lower", "ci_upper", "level"]
    assert cells(population).select(columns).equals(cells(other).select(columns))


def test_a_sample_of_a_data_set_has_whole_prompts_and_their_own_draws():
    population, _ = recorded(300, rows_per_prompt=(1, 2, 3))
    sample = population.sample(60, 1)
    assert len(np.unique(sample.logged.prompt_id)) == 60
    rows = np.isin(population.logged.prompt_id, sample.logged.prompt_id)
    np.testing.assert_array_equal(sample.logged.prompt_id, population.logged.prompt_id[rows])
    np.testing.assert_array_equal(sample.draws["clone"].judge_score, population.draws["clone"].judge_score[rows])
    np.testing.assert_array_equal(
        np.unique(sample.logged.prompt_id)[sample.code], sample.logged.prompt_id
    )  # the order of labelling is that of these prompts
    assert sorted(sample.order.tolist()) == list(range(60))


def test_with_fewer_labels_than_the_coverage_all_of_them_are_used():
    population, _ = recorded()
    label = np.where(np.arange(400) < 100, population.logged.oracle_label, np.nan)
    partial = replace(population, logged=replace(population.logged, oracle_label=label))
    assert masked(partial.sample(400, 0), 0.2, 0.0)[0].labelled.sum() == 80
    assert masked(partial.sample(400, 0), 0.6, 0.0)[0].labelled.sum() == 100


def test_larger_samples_than_the_data_set_are_refused():
    with pytest.raises(UserError, match="500 prompts, but the data set has 400"):
        recorded()[0].sample(500, 0)


def test_data_without_labels_of_targets_are_refused():
    logged, draws, _ = simulate.draw(world(), 50, 0)
    with pytest.raises(UserError, match="no target policy has a known value"):
        Recorded.of(logged, draws)


def test_settings_with_the_same_options_and_judge_share_a_run():
    chosen = settings(
        {"direct": ("direct", {}), "snips": ("snips", {}), "raw": ("dr-cpo", {"weights": "raw"})}, Switches()
    )
    assert [[one.name for one in group] for group in together(chosen)] == [["direct", "snips"], ["raw"]]


def test_a_setting_uses_the_score_distribution_of_the_judge_or_its_scores_alone():
    population = Simulated(replace(WORLDS["arena_length"]))
    logged, draws = masked(population.sample(100, 0), 0.5, 0.0)
    alone = as_read(logged, draws, Setting("direct", "direct", {}, SCORE), population.covariates)
    assert alone[0].judge_points is None
    assert alone[0].covariates is None
    whole = as_read(
        logged, draws, Setting("direct", "direct", {"covariates": ("style",)}, DISTRIBUTION), population.covariates
    )
    assert whole[0].judge_points is logged.judge_points
    np.testing.assert_array_equal(whole[1]["clone"].covariates, draws["clone"].covariates)
    with pytest.raises(UserError, match="which the data lack"):
        as_read(*alone, Setting("direct", "direct", {}, DISTRIBUTION), ())
    with pytest.raises(UserError, match="covariate 'length'"):
        as_read(*alone, Setting("direct", "direct", {"covariates": ("length",)}, SCORE), ("style",))


def test_policies_that_are_apart_enter_no_average_of_the_others():
    table = summary.summarise(cells(Simulated(WORLDS["arena"])), ["unhelpful"])
    assert table["policies"].unique(maintain_order=True).to_list() == ["all but unhelpful", "unhelpful"]
    apart = table.filter(pl.col("policies") == "unhelpful")
    assert apart["pairwise"].null_count() == len(apart)
    others = table.filter((pl.col("policies") != "unhelpful") & (pl.col("setting") == "direct"))
    assert others["rmse"].max() < 0.1 < apart.filter(pl.col("setting") == "direct")["rmse"].max()


def test_shares_of_right_and_wrong_refusals_sum_to_the_share_of_refusals():
    table = summary.summarise(cells(Simulated(WORLDS["arena"])), ["unhelpful"])
    for row in table.iter_rows(named=True):
        assert row["refused"] == pytest.approx(row["refused_rightly"] + row["refused_wrongly"])
        assert row["refused"] + row["published_wrongly"] <= 1 + 1e-12


def test_the_measures_of_a_summary_by_hand():
    row = {
        "n": 10,
        "coverage": 0.5,
        "setting": "s",
        "n_labels": 5,
        "se": 0.1,
        "refused_for": "",
        "truth_se": 0.0,
        "seconds": 1.0,
    }
    of_policy = {
        "base": {"is_base": True, "estimate": 0.5, "truth": 0.5, "level": "ok"},
        "good": {"is_base": False, "estimate": 0.9, "truth": 0.8, "level": "ok"},
        "bad": {
            "is_base": False,
            "estimate": 0.6,
            "truth": 0.2,
            "level": "refuse",
            "refused_for": "low_ess few_labels",
        },
    }
    rows = [
        row | one | {"policy": policy, "seed": 0, "ci_lower": one["estimate"] - 0.2, "ci_upper": one["estimate"] + 0.2}
        for policy, one in of_policy.items()
    ]
    measures = summary.summarise(pl.DataFrame(rows, schema=COLUMNS)).row(0, named=True)
    assert measures["rmse"] == pytest.approx(np.sqrt((0.01 + 0.16) / 2))
    assert measures["rmse_published"] == pytest.approx(0.1)
    assert (measures["covered"], measures["covered_published"]) == (0.5, 1.0)
    shares = {"refused": 0.5, "refused_rightly": 0.5, "refused_wrongly": 0, "published_wrongly": 0}
    assert {name: measures[name] for name in shares} == shares
    assert measures["reasons"] == "low_ess 1, few_labels 1"
    assert measures["pairwise"] == pytest.approx(2 / 3)  # the estimate of bad is above that of base
    assert measures["kendall_tau"] == pytest.approx(1 / 3)
    assert (measures["pairs_published"], measures["pairwise_published"]) == (pytest.approx(1 / 3), 1.0)
    assert measures["pairwise_refused"] == pytest.approx(0.5)
    assert (measures["top_1"], measures["regret"], measures["decided"], measures["top_1_published"]) == (1, 0, 1, 1)
    assert measures["interval_score"] == pytest.approx(np.sqrt(0.4 * (0.4 + 40 * 0.2)))
