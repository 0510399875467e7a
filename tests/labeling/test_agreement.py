"""Agreement: published tables, closed forms, and raters of known bias and noise."""

from __future__ import annotations

import numpy as np
import pytest

from arena_cje.labeling import aggregation, agreement
from arena_cje.labeling.records import Scale, Vote

UNIT = Scale(0, 1, 0.001)
FIVE = Scale(1, 5)

# Krippendorff (2011): four observers, twelve units, values 1 to 5; 0 is missing. Alpha is .743, .815 and .849.
RELIABILITY = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)
# Shrout and Fleiss (1979), table 2: six targets, four judges. ICC(1,1) is .17, ICC(1,4) .44.
TARGETS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def table(values: np.ndarray, missing: float | None = None) -> list[Vote]:
    """Votes of an array (items, raters)."""
    return [
        Vote(f"i{i:04d}", f"r{j}", float(values[i, j]), "table")
        for i, j in np.ndindex(*values.shape)
        if values[i, j] != missing
    ]


def ratings_of(values: np.ndarray, scale: Scale, missing: float | None = None) -> agreement.Ratings:
    return agreement.ratings(table(values, missing), scale)


@pytest.mark.parametrize(("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_published_table(level, expected):
    assert agreement.alpha(ratings_of(RELIABILITY.T, FIVE, missing=0), level) == pytest.approx(expected, abs=5e-4)


def test_alpha_of_two_raters_by_hand():
    # Values 0 0 1 1 and 0 1 1 1: o_01 = o_10 = 1, n_0 = 3, n_1 = 5, alpha = 1 - 7 * 2 / (2 * 15).
    two = ratings_of(np.array([[0, 0], [0, 1], [1, 1], [1, 1]]), Scale(0, 1))
    for level in ("nominal", "ordinal", "interval"):
        assert agreement.alpha(two, level) == pytest.approx(1 - 14 / 30)


def test_alpha_is_one_for_perfect_agreement_and_undefined_without_variation():
    assert agreement.alpha(ratings_of(np.array([[1, 1], [4, 4]]), FIVE), "ordinal") == 1
    assert agreement.alpha(ratings_of(np.array([[3, 3], [3, 3]]), FIVE), "nominal") is None
    assert agreement.alpha(ratings_of(np.array([[3], [4]]), FIVE), "nominal") is None


def test_intraclass_correlations_are_those_of_the_published_table():
    parts = agreement.variances(ratings_of(TARGETS, Scale(1, 10)))
    assert parts.icc() == pytest.approx(0.17, abs=0.005)
    assert parts.icc(4) == pytest.approx(0.44, abs=0.005)


def test_variances_are_recovered_where_items_have_different_numbers_of_votes(rng):
    n, k = 4000, 5
    values = rng.normal(0.5, 0.10, (n, 1)) + rng.normal(0, 0.05, (n, k))
    values[rng.random((n, k)) < 0.4] = -1
    parts = agreement.variances(agreement.ratings(table(values, missing=-1), UNIT))
    assert parts.between == pytest.approx(0.10**2, rel=0.06)
    assert parts.within == pytest.approx(0.05**2, rel=0.04)


def test_the_gain_of_further_votes_is_the_closed_form():
    rows = agreement.further_votes(agreement.Variances(between=0.04, within=0.04), most=3)
    assert [row["noise_share"] for row in rows] == pytest.approx([1 / 2, 1 / 3, 1 / 4])
    assert [row["relative_variance"] for row in rows] == pytest.approx([1, 3 / 4, 2 / 3])
    assert [row["reliability"] + row["noise_share"] for row in rows] == pytest.approx([1, 1, 1])


def test_the_bias_of_a_rater_and_its_standard_error_are_recovered(rng):
    bias, noise, n = np.array([0.1, 0.0, -0.1]), 0.05, 2000
    truth = rng.uniform(0.3, 0.7, n)
    votes = table(truth[:, None] + bias + rng.normal(0, noise, (n, 3)))
    rows = agreement.by_rater(agreement.ratings(votes, UNIT), votes, [], UNIT)
    # Against the mean of the other two: 3/2 of the bias, with noise of one vote and half another.
    assert [row["bias"] for row in rows] == pytest.approx([0.15, 0, -0.15], abs=0.005)
    assert [row["bias_se"] for row in rows] == pytest.approx([noise * (1.5 / n) ** 0.5] * 3, rel=0.06)
    assert all(row["odd"] == "" for row in rows)


def test_constant_fast_and_inconsistent_raters_are_reported_as_odd():
    rng = np.random.default_rng(3)
    good = rng.integers(1, 6, 40)
    second = np.clip(good + rng.integers(-1, 2, 40), 1, 5)
    values = np.stack([good, second, np.full(40, 3), rng.integers(1, 6, 40)], axis=1)
    seconds = {"r0": 20.0, "r1": 25.0, "r2": 9.0, "r3": 1.5}
    votes = [Vote(v.item_id, v.annotator_id, v.score, "", duration_s=seconds[v.annotator_id]) for v in table(values)]
    copies = [v for v in votes[:40] if v.annotator_id in ("r0", "r1")]
    copies += [Vote(v.item_id, "r3", 6 - v.score, "") for v in votes if v.annotator_id == "r3"]
    odd = {
        row["annotator_id"]: row["odd"]
        for row in agreement.by_rater(agreement.ratings(votes, FIVE), votes, copies, FIVE)
    }
    assert odd["r0"] == odd["r1"] == ""
    assert odd["r2"] == "constant: all votes are equal"
    assert "too fast: 1.5 seconds" in odd["r3"]
    assert "inconsistent" in odd["r3"]


def test_the_summary_of_the_votes_on_an_item_by_hand():
    rows = agreement.by_item(ratings_of(np.array([[1, 3], [5, 5]]), FIVE))
    assert rows[0] == {
        "item_id": "i0000",
        "n_votes": 2,
        "mean": 0.25,
        "sd": pytest.approx(0.125**0.5),
        "lowest": 0,
        "highest": 0.5,
    }
    assert (rows[1]["mean"], rows[1]["sd"]) == (1, 0)


def test_weighted_kappa_by_hand():
    # Differences 0 0 1 0 squared: mean 1/4. By chance, over all 16 pairs of (0 0 1 1) and (0 0 0 1): 8/16.
    assert agreement.weighted_kappa(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])) == pytest.approx(
        1 - (1 / 4) / (8 / 16)
    )
    assert agreement.weighted_kappa(np.array([1, 1]), np.array([1, 1])) is None


def test_a_judge_is_compared_with_people_on_items_that_both_scored():
    labels = {"a": 0.0, "b": 0.25, "c": 0.5, "d": 1.0, "unjudged": 0.5}
    scores = {"a": 0.1, "b": 0.3, "c": 0.9, "d": 0.95, "unlabelled": 0.2}
    comparison = agreement.with_judge(labels, scores, FIVE)
    assert comparison["n_items"] == 4
    assert comparison["spearman"] == 1
    assert comparison["mean_difference"] == pytest.approx((0.1 + 0.05 + 0.4 - 0.05) / 4)
    assert comparison["most_apart"][0] == {"item_id": "c", "label": 0.5, "judge": 0.9, "difference": pytest.approx(0.4)}


# ---- aggregation -------------------------------------------------------------------------------------------------------


def test_the_label_is_the_mean_where_no_bias_is_significant(rng):
    ratings = agreement.ratings(table(0.5 + rng.normal(0, 0.05, (30, 3))), UNIT)
    labels = aggregation.aggregate(ratings)
    assert labels.model == "mean"
    assert labels.p_value > aggregation.SIGNIFICANCE
    np.testing.assert_array_equal(labels.value, ratings.mean)


def test_the_test_for_biases_of_raters_has_its_nominal_level():
    rng = np.random.default_rng(0)
    p = [aggregation.two_way(agreement.ratings(table(rng.normal(0.5, 0.1, (20, 3))), UNIT)).p_value for _ in range(400)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.035)


def test_biases_are_removed_where_different_raters_vote_on_different_items(rng):
    n, raters = 600, 6
    truth = rng.uniform(0.3, 0.7, n)
    bias = np.array([0.15, 0.1, 0.0, -0.05, -0.05, -0.15])
    votes = [
        Vote(f"i{i:04d}", f"r{j}", truth[i] + bias[j] + rng.normal(0, 0.03), "")
        for i in range(n)
        for j in rng.choice(raters, 2, replace=False)
    ]
    ratings = agreement.ratings(votes, UNIT)
    labels, mean = aggregation.aggregate(ratings), aggregation.aggregate(ratings, "mean")
    assert labels.model == "two_way"
    np.testing.assert_allclose(labels.bias, bias, atol=0.01)
    assert np.std(labels.value - truth) == pytest.approx(0.03 / 2**0.5, rel=0.1)
    assert np.std(mean.value - truth) > 2 * np.std(labels.value - truth)


def test_labels_of_raters_without_common_items_are_means():
    votes = [Vote(f"i{i}", f"r{i % 2}", 1 + i, "") for i in range(4)]
    labels = aggregation.aggregate(agreement.ratings(votes, FIVE), "two_way")
    assert (labels.model, labels.bias, labels.panel_error) == ("mean", None, None)


def test_the_panel_error_is_the_spread_of_mean_biases_over_panels():
    rng = np.random.default_rng(5)
    errors, levels = [], []
    for _ in range(300):
        bias = rng.normal(0, 0.08, 8)
        values = 0.5 + bias + rng.normal(0, 0.1, (40, 8))
        errors.append(aggregation.two_way(agreement.ratings(table(values), UNIT)).panel_error)
        levels.append(bias.mean())
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(0.08 / 8**0.5, rel=0.05)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(levels), rel=0.12)
