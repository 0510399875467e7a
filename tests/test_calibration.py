"""The calibrator: monotone, mean preserving, the same in any batch, honest about what it cannot see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena_cje.diagnostics.calibration import calibration_error, diagnose, rank_correlation
from arena_cje.errors import UserError
from arena_cje.estimation.calibration import Calibration, calibrate, fit, isotonic
from arena_cje.estimation.records import Logged
from worlds import healthy

unit = st.floats(0, 1, allow_nan=False)


def slice_of(score, label, *, unlabelled: int = 0, n_folds: int = 5) -> Calibration:
    n = len(score) + unlabelled
    logged = Logged(
        "base",
        (),
        np.array([f"p{i}" for i in range(n)]),
        np.empty((n, 0)),
        np.concatenate([score, np.full(unlabelled, 0.5)]),
        np.concatenate([label, np.full(unlabelled, np.nan)]),
    )
    return fit(logged, n_folds=n_folds, jackknife_folds=20, seed=42)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), unit), min_size=1, max_size=60))
def test_monotone_bounded_and_mean_preserving(pairs):
    score, label = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    calibrator = isotonic(score / 12, label)
    fitted = calibrator(score / 12)
    assert fitted.sum() == pytest.approx(label.sum(), abs=1e-9)
    assert (np.diff(calibrator.values) >= 0).all()
    assert fitted.min() >= 0 and fitted.max() <= 1 + 1e-12


def test_knots_by_hand():
    """Violators pool to their mean, tied scores to theirs; between knots it is linear, beyond them constant."""
    calibrator = isotonic(np.array([0.2, 0.4, 0.6, 0.8, 0.8]), np.array([0.1, 0.5, 0.3, 0.6, 1.0]))
    assert calibrator(np.array([0.2, 0.4, 0.6, 0.8])) == pytest.approx([0.1, 0.4, 0.4, 0.8])
    assert calibrator(np.array([0.0, 0.3, 0.5, 0.7, 1.0])) == pytest.approx([0.1, 0.25, 0.4, 0.6, 0.8])


def test_falling_fit_mirrors_the_rising_one():
    rng = np.random.default_rng(0)
    x, y = rng.random(50), rng.random(50)
    assert isotonic(x, y, increasing=False)(x) == pytest.approx(-isotonic(x, -y)(x))


def test_a_batch_does_not_change_a_prediction():
    rng = np.random.default_rng(1)
    calibrator = isotonic(rng.random(40), rng.random(40))
    score = rng.random(500)
    one_by_one = np.concatenate([calibrator(score[i : i + 1]) for i in range(500)])
    assert (calibrator(score) == one_by_one).all()
    assert (calibrator(score.reshape(50, 10)).reshape(-1) == one_by_one).all()


def test_a_missing_score_stays_missing():
    assert np.isnan(isotonic(np.array([0.0, 1.0]), np.array([0.0, 1.0]))(np.array([np.nan]))).all()


def test_leaving_a_fold_out_is_fitting_the_rest():
    rng = np.random.default_rng(2)
    score, label, fold = rng.random(30), rng.random(30), np.arange(30) % 3
    rest = fold != 1
    without = calibrate(score, label, fold, without_fold=1)
    assert (without(score) == calibrate(score[rest], label[rest])(score)).all()


def test_leaving_out_all_that_there_is_leaves_it_in():
    score, label = np.array([0.1, 0.9]), np.array([0.0, 1.0])
    assert (calibrate(score, label, np.zeros(2, int), without_fold=0)(score) == label).all()


def test_shuffled_rows_give_the_same_fit():
    rng = np.random.default_rng(3)
    score, label = rng.integers(0, 9, 80) / 8, rng.random(80)
    order = rng.permutation(80)
    grid = np.linspace(0, 1, 101)
    assert calibrate(score[order], label[order])(grid) == pytest.approx(calibrate(score, label)(grid))


def test_held_out_rewards_never_saw_their_row():
    logged, _, _ = healthy()
    fitted = fit(logged, n_folds=5, jackknife_folds=20, seed=42)
    row = np.flatnonzero(logged.labelled)[0]
    label = logged.oracle_label.copy()
    label[row] = 1 - label[row]
    moved = fit(replace(logged, oracle_label=label), n_folds=5, jackknife_folds=20, seed=42)
    before, after = (f.held_out(logged.judge_score, f.fold)[row] for f in (fitted, moved))
    assert before == after
    assert fitted.full(logged.judge_score[row]) != moved.full(logged.judge_score[row])


def test_an_unknown_fold_is_an_error():
    fitted = slice_of(np.linspace(0, 1, 40), np.linspace(0, 1, 40))
    with pytest.raises(ValueError, match="without fold 9"):
        fitted.held_out(np.array([0.5]), np.array([9]))


@pytest.mark.parametrize(("labels", "crossing", "leaving"), [(4, 2, 2), (6, 3, 3), (10, 5, 5), (100, 5, 20)])
def test_folds_follow_the_number_of_labels(labels, crossing, leaving):
    fitted = slice_of(np.linspace(0, 1, labels), np.linspace(0, 1, labels), unlabelled=50)
    assert (len(fitted.cross_fitted), len(fitted.jackknife)) == (crossing, leaving)
    said = [reason.code for reason in diagnose(fitted).reasons]
    assert ("few_folds" in said) == (crossing < 5)


def test_three_labels_are_refused():
    with pytest.raises(UserError, match="at least 4 prompts, got 3 of 13"):
        slice_of(np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.3]), unlabelled=10)


def test_an_inverted_judge_is_said_aloud():
    score = np.linspace(0, 1, 50)
    found = diagnose(slice_of(score, 1 - score))
    assert found.spearman == pytest.approx(-1)
    assert found.f_min == pytest.approx(found.f_max)
    assert {"inverted_judge", "constant_calibration"} <= {reason.code for reason in found.reasons}
    assert {reason.level for reason in found.reasons} == {"caution"}


def test_a_perfect_judge_has_nothing_to_answer_for():
    score = np.linspace(0, 1, 200)
    found = diagnose(slice_of(score, score))
    assert (found.f_min, found.f_max, found.score_min, found.score_max) == pytest.approx((0, 1, 0, 1))
    assert found.rmse < 0.01 and found.calibration_error < 0.01 and found.instability < 0.01
    assert found.within_tenth == 1 and found.spearman == pytest.approx(1) and not found.reasons


def test_rmse_recovers_the_noise():
    rng = np.random.default_rng(4)
    score = rng.random(4000)
    found = diagnose(slice_of(score, np.clip(0.2 + 0.6 * score + rng.uniform(-0.1, 0.1, 4000), 0, 1)))
    assert found.rmse == pytest.approx(0.2 / np.sqrt(12), rel=0.1)
    assert found.calibration_error < found.rmse / 3


def test_calibration_error_by_hand():
    assert calibration_error(np.array([0.2, 0.4]), np.array([0.1, 0.7])) == pytest.approx((0.1 + 0.3) / 2)


def test_rank_correlation_is_unknown_for_a_constant():
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0)))
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([1.0, 4, 9])) == pytest.approx(1)
