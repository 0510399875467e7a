"""Labels by people compared with labels by a model: differences, their intervals, and a bias of the model for a policy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from arena_cje.labeling import oracles
from arena_cje.labeling.oracles import Pair, mean_by_prompt, side_by_side
from labeling_study import make

POLICIES = ("base", "other")


def label_pairs(n: int, *, level: float = 0.0, own: float = 0.0, seed: int = 0) -> list[Pair]:
    """Pairs of labels, by people and by a model that is higher by `level` on all responses and by `own` more on `other`."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        prompt_bias = rng.normal(0, 0.05)  # the model's error on the prompt, the same for all responses
        for policy in POLICIES:
            people = rng.uniform(0.2, 0.6)
            model = people + level + own * (policy == "other") + prompt_bias + rng.normal(0, 0.05)
            rows.append(Pair(f"{policy}{i}", policy, f"q{i}", people, float(model)))
    return rows


def test_the_interval_is_that_of_students_t_where_each_prompt_has_one_text():
    value = np.random.default_rng(1).normal(0.1, 0.2, 30)
    row = mean_by_prompt([(f"q{i}", v) for i, v in enumerate(value)])
    expected = stats.ttest_1samp(value, 0).confidence_interval()
    assert (row["ci_lower"], row["ci_upper"]) == pytest.approx((expected.low, expected.high))
    assert row["estimate"] == pytest.approx(value.mean())


def test_repeated_values_of_a_prompt_count_once():
    value = np.random.default_rng(2).normal(size=12)
    once = [(f"q{i}", v) for i, v in enumerate(value)]
    assert mean_by_prompt(once * 3) == pytest.approx(mean_by_prompt(once))


def test_a_single_prompt_has_a_mean_without_interval_and_no_prompts_have_no_mean():
    one = mean_by_prompt([("q", 0.2), ("q", 0.4)])
    assert one["estimate"] == pytest.approx(0.3)
    assert one["se"] is one["ci_lower"] is one["ci_upper"] is None
    assert mean_by_prompt([])["estimate"] is None


def test_a_model_that_is_higher_on_all_policies_shows_no_bias_for_one_policy():
    comparison = side_by_side(label_pairs(200, level=0.2), POLICIES)
    whole = comparison["mean_difference"]
    assert abs(whole["estimate"] - 0.2) < 3 * whole["se"] < 0.03
    beyond = comparison["policies"]["other"]["beyond_the_base"]
    assert beyond["ci_lower"] <= 0 <= beyond["ci_upper"]
    assert "beyond_the_base" not in comparison["policies"]["base"]


def test_a_model_that_favours_a_policy_has_an_interval_above_zero_for_it():
    beyond = side_by_side(label_pairs(200, level=0.2, own=0.1), POLICIES)["policies"]["other"]["beyond_the_base"]
    assert beyond["ci_lower"] > 0.05
    assert beyond["estimate"] == pytest.approx(0.1, abs=0.03)


def test_intervals_cover_the_true_differences():
    """Of 300 intervals at .95, 273 or fewer cover with probability .001."""
    hits = {"level": [], "beyond": []}
    for seed in range(300):
        comparison = side_by_side(label_pairs(25, level=0.1, own=0.05, seed=seed), POLICIES)
        whole, beyond = comparison["mean_difference"], comparison["policies"]["other"]["beyond_the_base"]
        hits["level"].append(whole["ci_lower"] <= 0.125 <= whole["ci_upper"])
        hits["beyond"].append(beyond["ci_lower"] <= 0.05 <= beyond["ci_upper"])
    assert min(map(np.mean, hits.values())) > 0.91


def test_rank_correlation_and_the_text_with_the_largest_difference_by_hand():
    people, model = [0.1, 0.4, 0.5, 0.9], [0.2, 0.1, 0.6, 0.8]
    rows = [Pair(f"i{k}", "base", f"q{k}", *both) for k, both in enumerate(zip(people, model, strict=True))]
    comparison = side_by_side(rows, POLICIES)
    assert comparison["spearman"] == pytest.approx(stats.spearmanr(people, model).statistic)
    assert comparison["most_apart"][0]["item_id"] == "i1"
    assert comparison["most_apart"][0]["difference"] == pytest.approx(-0.3)
    assert comparison["policies"]["other"]["n_texts"] == 0
    assert comparison["policies"]["other"]["spearman"] is None


def test_responses_that_lack_a_label_are_no_pairs_and_equal_texts_count_once():
    batch = make()  # every fourth text of `clone` is the base's
    labels = {row.item_id: 0.5 for row in batch.key[1:] if row.item_id != batch.key[0].item_id}
    scores = {(row.policy, row.prompt_id, 0): 0.6 for row in batch.key} | {("other", batch.key[-1].prompt_id, 0): None}
    pairs = oracles.pairs(batch.key, labels, scores)
    assert {pair.item_id for pair in pairs} <= labels.keys()
    assert ("other", batch.key[-1].prompt_id) not in {(pair.policy, pair.prompt_id) for pair in pairs}
    comparison = side_by_side(pairs, ("base", "clone", "other"))
    assert comparison["n_texts"] == len({pair.item_id for pair in pairs}) < len(pairs)
    assert sum(row["n_texts"] for row in comparison["policies"].values()) == len(pairs)
    assert comparison["mean_difference"]["estimate"] == pytest.approx(0.1)
