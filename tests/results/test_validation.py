"""The truth is a mean of labels, and its error the noise of labels given the score; refused estimates are not validated."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from arena_cje.errors import UserError
from arena_cje.results.analyze import analyze
from arena_cje.results.validation import truth, truth_of, validate

NAN = float("nan")


def test_labels_that_follow_the_score_have_no_noise_of_their_own():
    score = np.repeat(np.linspace(0, 1, 8), 10)[:, None]
    assert truth(score**2, score) == (pytest.approx(np.mean(score**2)), pytest.approx(0, abs=1e-12))


def test_labels_without_relation_to_the_score_have_their_full_noise():
    label = np.tile([0.2, 0.8], 50)[:, None]
    value, se = truth(label, np.full((100, 1), 0.5))
    assert (value, se) == (pytest.approx(0.5), pytest.approx(label.std(ddof=1) / 10, rel=0.05))


def test_the_truth_counts_prompts_not_draws():
    label = np.array([[0.0, 0.0, 0.0], [1.0, NAN, NAN], [NAN, NAN, NAN]])
    assert truth(label, np.full((3, 3), 0.5))[0] == 0.5


def test_a_label_without_a_score_counts_for_the_value():
    label, score = np.append(np.tile([0.2, 0.8], 50), 1.0)[:, None], np.append(np.full(100, 0.5), NAN)[:, None]
    value, se = truth(label, score)
    assert value == pytest.approx((50 + 1) / 101)
    assert se == truth(label[:-1], score[:-1])[1]


def test_few_labels_have_the_noise_of_their_mean():
    label, score = np.linspace(0, 1, 9)[:, None], np.linspace(0, 1, 9)[:, None]
    assert truth(label, score) == (pytest.approx(0.5), pytest.approx(label.std(ddof=1) / 3))
    more = np.linspace(0, 1, 10)[:, None]
    assert truth(more, more)[1] < truth(label, score)[1] / 2


def test_without_labels_the_truth_is_missing():
    assert np.isnan(truth(np.full((3, 1), NAN), np.zeros((3, 1)))).all()
    assert np.isnan(truth_of([], [])).all()
    assert np.isnan(truth(np.ones((1, 1)), np.ones((1, 1)))[1])


def test_intervals_of_the_truth_contain_the_mean_score_in_about_95_of_100_draws():
    rng = np.random.default_rng(5)
    score = rng.uniform(size=(200, 1))
    hits = []
    for _ in range(400):
        value, se = truth(score + rng.normal(0, 0.2, score.shape), score)
        hits.append(abs(value - score.mean()) <= 1.96 * se)
    assert 0.90 <= np.mean(hits) <= 0.98


def test_the_standard_error_is_not_shortened_by_fitting_the_labels_it_judges():
    """Labels without relation to the score: a rising fit would follow a part of their noise."""
    rng = np.random.default_rng(6)
    score = rng.uniform(size=(40, 1))
    standard_errors = [truth(rng.normal(0.5, 0.1, (40, 1)), score)[1] for _ in range(200)]
    assert np.mean(standard_errors) >= 0.1 / np.sqrt(40)


def test_draws_of_a_prompt_are_held_out_together():
    """Two equal draws of each prompt give the value and the error of one draw."""
    rng = np.random.default_rng(7)
    score = rng.uniform(size=(60, 1))
    label = rng.normal(0.5, 0.1, (60, 1))
    assert truth(np.repeat(label, 2, axis=1), np.repeat(score, 2, axis=1)) == pytest.approx(truth(label, score))


def test_grades_are_joined_by_prompt_and_draw():
    judge = [{"prompt_id": p, "draw_idx": d, "score": s} for p, d, s in (("b", 1, 0.4), ("a", 0, 0.1), ("c", 0, 0.9))]
    oracle = [{"prompt_id": p, "draw_idx": d, "score": s} for p, d, s in (("a", 0, 0.2), ("b", 1, 0.6), ("b", 0, None))]
    expected = truth(np.array([[0.2, NAN], [NAN, 0.6]]), np.array([[0.1, NAN], [NAN, 0.4]]))
    assert truth_of(judge, oracle) == expected


def test_labels_of_some_prompts_are_extrapolated_to_all_prompts_by_their_scores():
    """The label is the score, so that it is predicted where it is missing: here at low scores more often than at high ones."""
    score = np.repeat(np.linspace(0, 1, 10), 20)[:, None]
    label = np.where(np.arange(200)[:, None] % 4 < 3, score, NAN)
    label[:60:2] = NAN  # fewer of the low scores
    assert np.nanmean(label) > 0.55
    assert truth(label, score) == (pytest.approx(0.5), pytest.approx(0, abs=1e-12))


def test_intervals_of_the_truth_hold_when_few_prompts_have_a_label():
    """Labels of a seventh of the prompts estimate the value over all of them, with an error that is the noise of these labels."""
    rng = np.random.default_rng(8)
    score = rng.uniform(size=(420, 1))
    hits, errors = [], []
    for _ in range(400):
        label = np.full(score.shape, NAN)
        labelled = rng.permutation(420)[:60]
        label[labelled] = score[labelled] + rng.normal(0, 0.1, (60, 1))
        value, se = truth(label, score)
        hits.append(abs(value - score.mean()) <= 1.96 * se)
        errors.append(se)
    assert 0.91 <= np.mean(hits) <= 0.99
    assert np.mean(errors) < score.std() / np.sqrt(60) / 2


def test_judged_responses_without_a_label_count_by_their_scores():
    judge = [{"prompt_id": k, "draw_idx": 0, "score": k / 40} for k in range(40)]
    oracle = [{"prompt_id": k, "draw_idx": 0, "score": k / 40} for k in range(0, 40, 2)]
    label = np.where(np.arange(40) % 2 == 0, np.arange(40) / 40, NAN)[:, None]
    order = np.argsort(np.isnan(label[:, 0]), kind="stable")  # prompts with a label come first
    assert truth_of(judge, oracle) == truth(label[order], (np.arange(40) / 40)[order, None])
    assert truth_of(judge, oracle)[0] > np.nanmean(label) + 0.005


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(1)
    score = rng.uniform(size=200)
    rows = [
        {
            "prompt_id": k,
            "response": str(k),
            "base_policy_logprob": -200.0,
            "target_policy_logprobs": {"same": -200.0, "far": -200.0 + 9 * rng.normal()},
            "judge_score": s,
            "oracle_label": s if k % 2 else None,
        }
        for k, s in enumerate(score)
    ]
    return analyze(pl.DataFrame(rows), estimator="snips")


def test_validation_has_a_row_a_policy_and_scores_what_is_published(result):
    summary = result.summary("same")
    reach = stats.t.ppf(0.975, summary["df"]) * np.hypot(summary["se"], 0.01)
    inside, outside = summary["estimate"] + 0.99 * reach, summary["estimate"] + 1.01 * reach
    table = validate([result, result], {"same": (inside, 0.01), "far": (0.5, 0.01), "base": (outside, 0.0)})
    assert table.height == 6
    base, same, far = table.rows(named=True)[:3]
    assert [row["policy"] for row in (base, same, far)] == ["base", "same", "far"]
    assert (same["covered"], base["covered"], far["covered"]) == (True, False, None)
    assert same["absolute_error"] == pytest.approx(0.99 * reach)
    assert far["status"] == "refuse"
    assert (far["estimate"], far["absolute_error"]) == (None, None)
    assert far["refused_estimate"] == result.refused["far"]["estimate"]
    assert not validate([result], {"same": (outside, 0.01)})["covered"][1]


def test_a_policy_without_a_truth_is_neither_covered_nor_missed(result):
    row = validate([result], {}).row(1, named=True)
    assert row["estimate"] is not None
    assert (row["truth"], row["covered"], row["absolute_error"]) == (None, None, None)


def test_a_truth_of_an_unknown_policy_is_refused(result):
    with pytest.raises(UserError, match="true value for 'sme'.*'same'"):
        validate([result], {"sme": (0.5, 0.1)})
