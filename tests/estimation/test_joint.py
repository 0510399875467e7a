"""The joint estimate of several policies: its formula, cases where it changes nothing, and pairs of labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arena_cje.estimation.joint import (
    MIN_TUNED,
    SHRINKAGE,
    Column,
    joint_values,
    lenders_of,
    score_weights,
    values_without,
)

NAN = float("nan")


def columns(n: int = 300, m: int = 60, policies: int = 3, seed: int = 0) -> list[Column]:
    """Policies with labels on the first m rows; labels of a row are correlated beyond what their scores explain."""
    rng = np.random.default_rng(seed)
    strictness, quality = rng.standard_normal(n), rng.standard_normal(n)
    table = []
    for _ in range(policies):
        score = 0.5 + 0.1 * quality + 0.1 * rng.standard_normal(n)
        label = np.where(np.arange(n) < m, score + 0.1 * strictness + 0.05 * rng.standard_normal(n), NAN)
        share = (~np.isnan(label)).astype(float)
        table.append(Column(score, np.where(share > 0, score, NAN), label, share))
    return table


def values(table: list[Column], m: int = 60) -> np.ndarray:
    return np.array([one.value for one in joint_values(table, [m] * len(table))])


def test_the_vector_formula_by_hand():
    """Labels of all policies on the same prompts: mean Y + A (mean_N F - mean_L F), A shrunk towards a diagonal."""
    table, m = columns(), 60
    score, label = np.column_stack([c.score for c in table]), np.column_stack([c.label for c in table])[:m]
    both = np.cov(np.column_stack([label, score[:m]]), rowvar=False, bias=True)
    with_label, covariance = both[:3, 3:], both[3:, 3:]
    alone = np.diag(np.clip(np.diag(with_label) / np.diag(covariance), 0, 1))
    ridge = SHRINKAGE / m * np.trace(covariance)
    weights = (with_label + ridge * alone) @ np.linalg.inv(covariance + ridge * np.eye(3))
    expected = label.mean(axis=0) + weights @ (score.mean(axis=0) - score[:m].mean(axis=0))
    results = joint_values(table, [m] * 3)
    assert values(table) == pytest.approx(expected, abs=1e-12)
    assert np.array([one.weights for one in results]) == pytest.approx(weights, abs=1e-12)
    influence = (score - score.mean(axis=0)) @ weights.T
    assert np.column_stack([one.influence for one in results]) == pytest.approx(influence, abs=1e-12)
    for one in results:
        assert np.nanmean(one.residual) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_policies_and_rows_makes_no_difference(seed):
    table, rng = columns(seed=seed), np.random.default_rng(seed)
    policies, rows = rng.permutation(3), rng.permutation(300)
    moved = [
        Column(c.score[rows], c.labelled_score[rows], c.label[rows], c.share[rows])
        for c in (table[k] for k in policies)
    ]
    assert values(moved) == pytest.approx(values(table)[policies], abs=1e-12)


def test_where_every_response_has_a_label_the_value_is_the_mean_label():
    table = columns(m=300)
    assert values(table, 300) == pytest.approx([c.label.mean() for c in table], abs=1e-12)
    assert (values_without(table, [300] * 3, np.arange(300) % 20, 20) == values(table, 300)).all()
    mixed = [columns(m=300)[0], *columns()[1:]]
    assert joint_values(mixed, [300, 60, 60])[0].value == pytest.approx(mixed[0].label.mean(), abs=1e-12)


def test_below_twenty_labelled_prompts_no_weight_is_fitted():
    """Each policy has weight one on its own score: the mean residual of its labels corrects its mean score."""
    table = columns(m=MIN_TUNED - 1)
    for j, (one, column) in enumerate(zip(joint_values(table, [MIN_TUNED - 1] * 3), table, strict=True)):
        assert one.value == pytest.approx(column.score.mean() + np.nanmean(column.label - column.score), abs=1e-12)
        assert one.influence == pytest.approx(column.score - column.score.mean(), abs=1e-12)
        assert (one.weights == np.eye(3)[j]).all()


@pytest.mark.parametrize("score", ["constant", "reversed"])
def test_scores_that_do_not_rise_with_labels_have_no_weight_of_their_own(score):
    """One policy alone, whose weight is clipped at zero and shrunk towards it."""
    column = columns(policies=1)[0]
    other = np.full(300, 0.5) if score == "constant" else 1 - column.score
    flat = replace(column, score=other, labelled_score=np.where(column.share > 0, other, NAN))
    one = joint_values([flat], [60])[0]
    if score == "constant":
        assert one.value == pytest.approx(np.nanmean(column.label)) and not one.weights.any()
    else:  # the weight is that of least squares, negative, but closer to zero
        p = np.polyfit(other[:60], column.label[:60], 1)[0]
        assert p < one.weights[0] < 0


def test_labels_that_differ_by_a_constant_give_exactly_that_difference():
    """The same scores, and each label lower by .1: pairs of labels determine the difference without error."""
    first = columns(policies=1)[0]
    table = [first, replace(first, label=first.label - 0.1)]
    estimates = values(table)
    without = values_without(table, [60, 60], np.arange(300) % 20, 20)
    assert estimates[0] - estimates[1] == pytest.approx(0.1, abs=1e-12)
    assert without[:, 0] - without[:, 1] == pytest.approx(np.full(20, 0.1), abs=1e-12)
    one, other = joint_values(table, [60, 60])
    assert one.influence == pytest.approx(other.influence, abs=1e-12)


def test_leaving_out_a_group_leaves_out_its_labels_of_all_policies():
    table, group = columns(), np.arange(300) % 20
    rest = [
        replace(c, label=np.where(group == 7, NAN, c.label), share=np.where(group == 7, 0.0, c.share)) for c in table
    ]
    assert values_without(table, [60] * 3, group, 20)[7] == pytest.approx(values(rest), abs=1e-12)


def test_rows_without_a_score_have_no_influence():
    """A score that is missing counts as the mean score; values change by little."""
    table = columns(n=2000, m=400)
    missing = np.random.default_rng(1).random(2000) < 0.1
    score = np.where(missing, NAN, table[1].score)
    label = np.where(missing, NAN, table[1].label)
    share = np.where(missing, 0.0, table[1].share)
    partly = [table[0], Column(score, np.where(share > 0, score, NAN), label, share), table[2]]
    results = joint_values(partly, [400, int(share.sum()), 400])
    assert not results[1].influence[missing].any() and results[1].influence.mean() == pytest.approx(0, abs=1e-12)
    assert [one.value for one in results] == pytest.approx(values(table, 400), abs=0.01)


def test_a_prompt_with_half_its_draws_labelled_counts_half():
    column = columns(policies=1, m=40)[0]
    flat = np.full(300, 0.5)
    half = Column(flat, flat, column.label, np.where(np.arange(300) < 20, column.share / 2, column.share))
    one = joint_values([half], [MIN_TUNED - 1])[0]
    assert one.value == pytest.approx((column.label[:20].mean() * 10 + column.label[20:40].mean() * 20) / 30)


def test_fitted_weights_are_hardly_worse_than_weights_of_one_or_zero():
    """Errors of levels and differences over samples, against the mean label and the plain correction."""
    errors = {"joint": [], "labels": [], "plain": []}
    for seed in range(300):
        table = columns(m=60, seed=seed)
        estimates = {
            "joint": values(table),
            "labels": np.array([np.nanmean(c.label) for c in table]),
            "plain": np.array([np.nanmean(c.label - c.score) + c.score.mean() for c in table]),
        }
        for name, one in estimates.items():
            errors[name].append([one[0] - 0.5, one[1] - one[0]])
    spread = {name: np.sqrt(np.mean(np.square(one), axis=0)) for name, one in errors.items()}
    assert (spread["joint"] < 1.03 * np.minimum(spread["labels"], spread["plain"])).all()
    assert (spread["joint"] < 0.9 * spread["labels"]).all()


def with_more_labels_of_first_policy(table: list[Column], rows: int = 300) -> list[Column]:
    """The table with more labels of its first policy; the labels that it had stay the same."""
    first = columns(m=rows, policies=3, seed=0)[0]
    return [first, *table[1:]]


def test_residuals_of_a_policy_with_more_labels_are_regressors_of_another():
    """By hand: its residuals beside the scores, where the policy has labels; their mean over all its labels is zero."""
    table = with_more_labels_of_first_policy(columns(), rows=200)
    prompts = [200, 60, 60]
    first, second, _ = joint_values(table, prompts)
    assert len(first.weights) == 3 and len(second.weights) == 4
    centred = np.column_stack([c.score - c.score.mean() for c in table])
    regressors = np.column_stack([centred, first.residual])[:60]
    label = table[1].label[:60]
    assert second.weights == pytest.approx(score_weights(regressors, label, np.ones(60), 1, 60))
    assert second.value == pytest.approx(label.mean() - regressors.mean(axis=0) @ second.weights)
    assert np.nanmean(first.residual) == pytest.approx(0, abs=1e-12)
    assert second.weights[3] > 0.2  # labels of a prompt share the oracle's strictness


def test_a_policy_with_few_more_labels_or_few_shared_prompts_is_no_lender():
    table = columns()
    assert [lenders_of(1, with_more_labels_of_first_policy(table, rows=rows), [rows, 60, 60]) for rows in (80, 90)] == [
        [],
        [0],
    ]
    label = np.where(np.arange(300) >= 60 - MIN_TUNED + 1, 0.5, NAN)  # shares 19 prompts
    lender = Column(table[0].score, np.where(np.isnan(label), NAN, table[0].score), label, (~np.isnan(label)) * 1.0)
    assert lenders_of(1, [lender, *table[1:]], [259, 60, 60]) == []


def test_labels_of_another_policy_make_values_more_precise():
    errors = []
    for seed in range(200):
        table = columns(m=200, policies=2, seed=seed)
        few = columns(m=40, policies=2, seed=seed)[1]
        with_lender = joint_values([table[0], few], [200, 40])
        alone = joint_values([columns(m=40, policies=2, seed=seed)[0], few], [40, 40])
        errors.append([with_lender[1].value - 0.5, alone[1].value - 0.5])
    spread = np.sqrt(np.mean(np.square(errors), axis=0))
    assert spread[0] < 0.9 * spread[1]


def test_labels_of_a_lender_on_all_prompts_enter_the_influence_function_as_scores_do():
    """Its labels are known on all prompts, so that they enter the influence function as scores do."""
    table = with_more_labels_of_first_policy(columns())
    first, second, _ = joint_values(table, [300, 60, 60])
    centred = np.column_stack([*(c.score - c.score.mean() for c in table), table[0].label - table[0].label.mean()])
    assert second.influence == pytest.approx(centred @ second.weights, abs=1e-12)
