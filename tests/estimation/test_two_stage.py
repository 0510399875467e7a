"""The two-stage calibrator: mean preserving, the same in any batch and order, better only where covariates matter."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from arena_cje.errors import UserError
from arena_cje.estimation import two_stage
from arena_cje.estimation.calibration import rewards
from arena_cje.estimation.isotonic import Monotone, isotonic
from arena_cje.estimation.records import Judged
from arena_cje.estimation.two_stage import Index, TwoStage, choose, falls, fit
from workflow_run import ROOT


def sample(l: int = 120, c: int = 1, seed: int = 0, noise: float = 0.1):  # noqa: E741
    """Scores, covariates as skewed as the length of replies, and labels that depend on both."""
    rng = np.random.default_rng(seed)
    score, covariates = rng.random(l), rng.lognormal(5, 1, (l, c))
    shift = 0.15 * np.tanh(np.log(covariates).sum(axis=1) - 5 * c) if c else 0
    return score, covariates, np.clip(0.2 + 0.6 * score + shift + noise * rng.standard_normal(l), 0, 1)


def grid(c: int = 1, size: int = 1000):
    rng = np.random.default_rng(99)
    return rng.uniform(-0.2, 1.2, size), rng.lognormal(5, 1.5, (size, c))


@pytest.mark.parametrize("c", [0, 1, 3])
@pytest.mark.parametrize(("count", "knots"), [(30, 6), (300, 8)])
def test_the_index_equals_the_prediction_of_a_scikit_learn_pipeline(c, count, knots):
    score, covariates, label = sample(count, c)
    weight = np.random.default_rng(3).uniform(0.7, 1, count)  # no row counts for more than one label
    pipeline = make_pipeline(SplineTransformer(knots), RidgeCV(two_stage.PENALTIES))
    pipeline.fit(np.column_stack([score, covariates]), label, ridgecv__sample_weight=weight)
    at, other = grid(c)
    expected = pipeline.predict(np.column_stack([at, other])) - pipeline[-1].intercept_
    assert fit(score, covariates, label, weight).index(at, other) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_penalty_has_the_least_leave_one_out_error(weighted):
    """Refitting without each label, for every penalty, chooses the same coefficients; a row of 2.4 labels is two and .4."""
    chosen = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        score, label = rng.random(25), rng.random(25)
        label += seed / 10 * np.sin(6 * score)
        weight = rng.choice([0.5, 0.8, 1.0, 2.0, 2.4, 3.0], 25) if weighted else np.ones(25)
        knots = min(8, round(weight.sum()) // 4)
        basis = SplineTransformer(knots).fit_transform(score[:, None])

        def solve(weight, penalty, basis=basis, label=label):
            mean, level = weight @ basis / weight.sum(), weight @ label / weight.sum()
            x = basis - mean
            slope = np.linalg.solve((x.T * weight) @ x + penalty * np.eye(x.shape[1]), x.T @ (weight * (label - level)))
            return slope, level - mean @ slope

        def squared_errors(mass, penalty, weight=weight, basis=basis, label=label, solve=solve):
            """Squared errors (25,) of fits that lack the mass (25,) of one row each."""
            without = [solve(row, penalty) for row in weight - np.diag(mass)]
            return np.square(
                [y - level - x @ slope for x, y, (slope, level) in zip(basis, label, without, strict=True)]
            )

        def loss(penalty, weight=weight, squared_errors=squared_errors):
            whole, rest = weight // 1, weight % 1
            return whole @ squared_errors(np.minimum(whole, 1), penalty) + rest @ squared_errors(rest, penalty)

        best = min(two_stage.PENALTIES, key=loss)
        coefficient = fit(score, np.empty((25, 0)), label, weight).index.coefficient[0]
        assert coefficient == pytest.approx(solve(weight, best)[0], abs=1e-9)
        chosen.add(best)
    assert len(chosen) > 5


@pytest.mark.parametrize(("mode", "imported"), [("monotone", False), ("two_stage", True)])
def test_scikit_learn_is_imported_only_for_a_two_stage_fit(mode, imported):
    code = (
        "import sys, numpy\n"
        "from arena_cje.estimation import calibration, two_stage\n"
        "from arena_cje.estimation.records import Judged\n"
        f"calibration.calibrate(Judged.of(numpy.linspace(0, 1, 40)), numpy.linspace(0, 1, 40), {mode!r})\n"
        "print('sklearn' in sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "workflow")}, capture_output=True, text=True
    )
    assert process.stdout == f"{imported}\n", process.stderr


@pytest.mark.parametrize("c", [0, 1, 3])
@pytest.mark.parametrize("count", [5, 20, 31, 300])
def test_rewards_and_labels_have_the_same_sum(c, count):
    score, covariates, label = sample(count, c)
    assert fit(score, covariates, label)(score, covariates).sum() == pytest.approx(label.sum(), abs=1e-9)
    weight = np.random.default_rng(1).random(count) * 3
    fitted = fit(score, covariates, label, weight)(score, covariates)
    assert weight @ fitted == pytest.approx(weight @ label, abs=1e-9)


@pytest.mark.parametrize("c", [0, 1, 4])
def test_a_batch_does_not_change_a_prediction(c):
    """A row has one rank whatever the size of its batch, even where ranks change (trap T41)."""
    calibrator = fit(*sample(200, c))
    score, covariates = grid(c)
    score[::7] = sample(200, c)[0][:143]
    covariates[::7] = sample(200, c)[1][:143]  # training points, at which the ranks change
    at_once = calibrator(score, covariates)
    for size in (1, 3, 64, 999):
        parts = [calibrator(score[i : i + size], covariates[i : i + size]) for i in range(0, 1000, size)]
        assert (np.concatenate(parts) == at_once).all()
    draws = calibrator(score.reshape(100, 10), covariates.reshape(100, 10, c))
    assert (draws.reshape(-1) == at_once).all()
    assert (calibrator(score[::-1], covariates[::-1])[::-1] == at_once).all()


def test_points_of_an_uncertain_judge_share_the_covariates_of_their_response():
    calibrator = fit(*sample(200, 2))
    points, mass, covariates = np.array([[0.1, 0.9], [0.4, 0.5]]), np.array([[0.2, 0.8], [0.5, 0.5]]), grid(2, 2)[1]
    by_hand = [sum(mass[i, r] * calibrator(points[i, r], covariates[i]) for r in range(2)) for i in range(2)]
    assert rewards(calibrator, Judged(points, mass, covariates)) == pytest.approx(by_hand, abs=1e-12)


def test_the_order_of_rows_does_not_matter():
    score, covariates, label = sample(150, 2)
    weight = np.random.default_rng(1).random(150)
    order = np.random.default_rng(2).permutation(150)
    one = fit(score, covariates, label, weight)
    other = fit(score[order], covariates[order], label[order], weight[order])
    assert (one(*grid(2)) == other(*grid(2))).all()


@pytest.mark.parametrize(("c", "rows"), [(0, 60), (1, 60), (3, 60), (1, 12)])
def test_an_integer_weight_equals_repeating_the_row(c, rows):
    """Twelve rows whose weights sum to twenty or more are no fallback, and have the knots of as many rows."""
    score, covariates, label = sample(rows, c)
    weight = np.random.default_rng(4).integers(0, 5, rows)
    weighted = fit(score, covariates, label, weight.astype(float))
    repeated = fit(*(np.repeat(array, weight, axis=0) for array in (score, covariates, label)))
    assert not weighted.fallback and not repeated.fallback
    assert weighted(*grid(c)) == pytest.approx(repeated(*grid(c)), abs=1e-9)
    assert weighted.rank(*grid(c)) == pytest.approx(repeated.rank(*grid(c)), abs=1e-9)


def test_a_row_of_weight_zero_changes_nothing():
    """Also where its score is missing, as in the padding of a judge's points."""
    score, covariates, label = sample(80)
    more = fit(
        np.append(score, [np.nan, 9.0]),
        np.vstack([covariates, [[np.nan], [1e6]]]),
        np.append(label, [0.0, 1.0]),
        np.append(np.ones(80), [0.0, 0.0]),
    )
    assert (more(*grid()) == fit(score, covariates, label)(*grid())).all()


@pytest.mark.parametrize(
    ("curve", "rms"),
    [
        (lambda z: 0.5 + 0.7 * z, 0.002),
        # The index is a sum over columns, which can only approximate this one.
        (lambda z: 1 / (1 + np.exp(-6 * z)), 0.03),
    ],
)
def test_a_map_that_rises_in_a_linear_index_is_recovered(curve, rms):
    rng = np.random.default_rng(7)
    score, covariates = rng.random(2000), rng.random((2000, 1))
    new_score, new = rng.random(2000), rng.random((2000, 1))

    def truth(score, covariates):
        return curve(0.7 * score - 0.5 * covariates[:, 0])

    label, expected = truth(score, covariates), truth(new_score, new)
    error = fit(score, covariates, label)(new_score, new) - expected
    assert np.sqrt(np.mean(error**2)) < rms
    assert abs(error.mean()) < 0.002
    assert np.sqrt(np.mean((isotonic(score, label)(new_score) - expected) ** 2)) > 4 * rms


@pytest.mark.parametrize("without", [0, 3])
def test_a_calibrator_of_training_rows_uses_the_index_ranks_and_map_of_these_rows_alone(without):
    """The monotone map of a fold is fitted on, and read at, ranks of that fold's index: never at scores."""
    score, covariates, label = sample(100, 2)
    train = np.arange(100) % 5 != without
    calibrator = fit(score[train], covariates[train], label[train])
    index = calibrator.index(score[train], covariates[train])
    rank = np.array([np.sum(index < g) + np.sum(index == g) / 2 for g in index]) / train.sum()
    assert calibrator.rank(score[train], covariates[train]) == pytest.approx(rank, abs=1e-12)
    assert len(np.unique(index)) == train.sum()
    assert rank == pytest.approx(np.array([np.sum(index <= g) - 0.5 for g in index]) / train.sum(), abs=1e-12)
    held_out_index = calibrator.index(score[~train], covariates[~train])
    ordered = np.argsort(index)
    by_hand = isotonic(rank, label[train])(np.interp(held_out_index, index[ordered], rank[ordered]))
    assert calibrator(score[~train], covariates[~train]) == pytest.approx(by_hand, abs=1e-12)


def test_tied_rows_share_the_middle_of_their_ranks():
    score, covariates, label = sample(40)
    score[:10], covariates[:10] = 0.5, 150.0
    calibrator = fit(score, covariates, label)
    index = calibrator.index(score, covariates)
    expected = (np.sum(index < index[0]) + 5) / 40
    assert calibrator.rank(score[:10], covariates[:10]) == pytest.approx(np.full(10, expected))


def test_rows_whose_indices_differ_only_by_rounding_have_equal_ranks():
    """Score and covariate play one part, so swapping them must change no rank, whichever is summed first."""
    rng = np.random.default_rng(11)
    a, b = rng.random(100), rng.random(100)
    label = np.clip(0.5 * (a + b) + 0.2 * rng.standard_normal(100), 0, 1)
    calibrator = fit(np.append(a, b), np.append(b, a)[:, None], np.append(label, label))
    assert calibrator.index.coefficient[0] == pytest.approx(calibrator.index.coefficient[1], abs=1e-12)
    assert (calibrator.rank(a, b[:, None]) == calibrator.rank(b, a[:, None])).all()


def test_without_covariates_labels_that_rise_with_the_score_give_the_monotone_map():
    score, none, _ = sample(200, 0)
    label = 0.1 + 0.6 * score + 0.2 * score**2 + 0.001 * np.random.default_rng(1).standard_normal(200)
    calibrator = fit(score, none, label)
    assert (np.diff(calibrator.index(np.sort(score), none)) > 0).all()
    assert calibrator(score, none) == pytest.approx(isotonic(score, label)(score), abs=1e-9)


@pytest.mark.parametrize("c", [0, 2])
@pytest.mark.parametrize("count", [1, 4, 19])
def test_with_few_labels_the_calibrator_is_the_monotone_map_and_marked_as_fallback(c, count):
    score, covariates, label = sample(count, c)
    calibrator = fit(score, covariates, label)
    at, other = grid(c)
    assert calibrator.fallback
    assert calibrator(at, other) == pytest.approx(isotonic(score, label)(at), abs=1e-9)
    assert falls(calibrator, at, other) == 0


def test_labels_whose_weights_sum_to_twenty_are_enough_for_two_stages():
    score, covariates, label = sample(20)
    assert not fit(score, covariates, label).fallback
    spread_out = [np.repeat(array, 5, axis=0) for array in (score, covariates, label)]
    assert not fit(*spread_out, np.full(100, 0.2)).fallback
    assert fit(*(array[:95] for array in spread_out), np.full(95, 0.2)).fallback


@pytest.mark.parametrize(("count", "knots"), [(20, 5), (27, 6), (28, 7), (32, 8), (400, 8)])
def test_there_is_a_knot_for_each_four_labels_up_to_eight_knots(count, knots):
    assert fit(*sample(count)).index.coefficient.shape == (2, knots + 2)


def test_a_constant_covariate_makes_no_difference():
    score, covariates, label = sample(100)
    one = fit(score, covariates, label)
    two = fit(score, np.column_stack([np.full(100, 0.1), covariates]), label)
    at, other = grid()
    assert two(at, np.column_stack([np.full(1000, 0.1), other])) == pytest.approx(one(at, other), abs=1e-9)
    assert two(at, np.column_stack([np.full(1000, 7.0), other])) == pytest.approx(one(at, other), abs=1e-9)
    assert np.isfinite(fit(np.full(50, 0.5), np.full((50, 1), 3.0), label[:50])(at, other)).all()


def test_the_unit_of_a_covariate_makes_no_difference():
    score, covariates, label = sample(100)
    at, other = grid()
    in_thousands = fit(score, covariates / 1000 - 3, label)
    assert in_thousands(at, other / 1000 - 3) == pytest.approx(fit(score, covariates, label)(at, other), abs=1e-9)


def test_scores_and_covariates_beyond_the_labelled_rows_are_held_at_their_ends():
    score, covariates, label = sample(100)
    calibrator = fit(score, covariates, label)
    at, other = grid()
    clipped = np.clip(at, score.min(), score.max()), np.clip(other, covariates.min(), covariates.max())
    assert (at != clipped[0]).any() and (other != clipped[1]).any()
    assert (calibrator(at, other) == calibrator(*clipped)).all()
    assert calibrator(np.inf, np.array([-np.inf])) == calibrator(score.max(), covariates.min(axis=0))
    assert label.min() <= calibrator(at, other).min() <= calibrator(at, other).max() <= label.max()


@pytest.mark.parametrize("count", [10, 100])
def test_a_missing_value_stays_missing(count):
    calibrator = fit(*sample(count, 2))
    score, covariates = grid(2, 4)
    score[0], covariates[1, 0], covariates[2, 1] = np.nan, np.nan, np.nan
    with np.errstate(all="raise"):
        assert np.isnan(calibrator(score, covariates)).tolist() == [True, True, True, False]
    assert np.isnan(calibrator.rank(score, covariates)).tolist() == [True, True, True, False]


@pytest.mark.parametrize(("part", "name"), [(0, "judge scores"), (1, "covariate 1"), (2, "oracle labels")])
def test_a_missing_value_in_a_labelled_row_is_refused(part, name):
    data = sample(30)
    data[part][3] = np.nan
    with pytest.raises(UserError, match=f"finite {name} on all 30 labelled rows, but 1 .*; add them, or leave"):
        fit(*data)


def test_wrong_covariates_negative_weights_and_no_labels_are_refused():
    score, covariates, label = sample(30)
    with pytest.raises(ValueError, match="fitted with 1 covariates, got 2"):
        fit(score, covariates, label)(*grid(2))
    with pytest.raises(ValueError, match="not negative, got one of -1"):
        fit(score, covariates, label, np.append(np.ones(29), -1.0))
    with pytest.raises(UserError, match="needs labelled rows, got none; raise"):
        fit(score[:0], covariates[:0], label[:0])


def world(seed: int, effect: float, l: int = 250):  # noqa: E741
    """Thirteen distinct scores, as judges give them, and a covariate that changes labels by `effect`."""
    rng = np.random.default_rng(seed)
    score, covariates = rng.choice(np.linspace(0.2, 0.95, 13), l), rng.standard_normal((l, 1))
    label = 0.2 + 0.6 * score + effect * np.tanh(covariates[:, 0]) + 0.15 * rng.standard_normal(l)
    return score, covariates, np.clip(label, 0, 1), rng.permutation(np.arange(l) % 5)


def test_with_a_covariate_without_effect_the_monotone_map_is_chosen():
    choices = [choose(*world(seed, effect=0.0))[0] for seed in range(100)]
    assert choices.count("monotone") >= 95


def test_with_a_covariate_that_has_an_effect_the_two_stage_map_is_chosen():
    choices = [choose(*world(seed, effect=0.2))[0] for seed in range(20)]
    assert choices.count("two_stage") == 20


def test_the_choice_is_by_one_standard_error_of_held_out_errors():
    """By hand; effects from none to large, so that both sides of the margin, and its inside, occur."""
    cases = set()
    for seed in range(30):
        score, covariates, label, fold = world(seed, effect=0.1 * (seed % 3))
        monotone, two = np.empty(250), np.empty(250)
        for k in range(5):
            rest, in_fold = fold != k, fold == k
            monotone[in_fold] = isotonic(score[rest], label[rest])(score[in_fold])
            two[in_fold] = fit(score[rest], covariates[rest], label[rest])(score[in_fold], covariates[in_fold])
        one_error, other_error = np.sqrt(np.mean((label - monotone) ** 2)), np.sqrt(np.mean((label - two) ** 2))
        se = np.std((label - monotone) ** 2, ddof=1) / np.sqrt(250) / (2 * one_error)
        choice, figures = choose(score, covariates, label, fold)
        assert figures == pytest.approx({"rmse_monotone": one_error, "rmse_two_stage": other_error, "se": se})
        assert choice == ("two_stage" if other_error < one_error - se else "monotone")
        cases.add((other_error < one_error, choice))
    assert cases == {(False, "monotone"), (True, "monotone"), (True, "two_stage")}


def test_a_monotone_map_without_error_is_kept():
    score = np.linspace(0, 1, 60)
    label = (score > 0.5).astype(float)
    fold = np.arange(60) // 30 * 0  # one fold: no row can be left out, so each map is fitted on all of them
    choice, figures = choose(score, np.zeros((60, 0)), label, fold)
    assert (choice, figures["rmse_monotone"], figures["se"]) == ("monotone", 0.0, 0.0)


def rising_and_falling() -> TwoStage:
    """Reward t at the score's rising coefficients, and one minus twice the covariate's."""
    coefficient = np.array([[-1.0, 0.0, 1.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    line = Monotone(np.array([-2.0, 2.0]), np.array([-2.0, 2.0]))
    return TwoStage(Index(np.zeros(2), np.ones(2), coefficient), line, line)


def test_the_drop_over_rising_scores_by_hand():
    """The index is 0 at both ends and 2/3 in the middle: the mean of its B-splines there, a sixth, two thirds, a sixth."""
    score, covariates = np.array([1.0, np.nan, 0.5, 0.0, 0.5]), np.array([[0.3], [0.1], [0.5], [0.4], [np.nan]])
    assert rising_and_falling()(score[[3, 2, 0]], covariates[[3, 2, 0]]) == pytest.approx([0, 2 / 3, 0])
    assert falls(rising_and_falling(), score, covariates) == pytest.approx(2 / 3)
    assert falls(rising_and_falling(), score[2:4], covariates[2:4]) == 0  # from 0 to a half it rises
    assert falls(rising_and_falling(), score[1:2], covariates[1:2]) == 0


def test_the_drop_is_taken_at_the_medians_of_the_covariates():
    rng = np.random.default_rng(3)
    score, covariates = rng.random(300), rng.lognormal(size=(300, 1))
    label = 0.5 + 0.4 * np.sin(5 * score) * np.exp(-covariates[:, 0]) + 0.05 * rng.standard_normal(300)
    calibrator = fit(score, covariates, np.clip(label - 0.1 * covariates[:, 0], 0, 1))
    reward = calibrator(np.sort(score), np.full((300, 1), np.median(covariates)))
    largest = max(reward[i] - reward[i:].min() for i in range(300))
    assert falls(calibrator, score, covariates) == pytest.approx(largest, abs=1e-9)
    assert largest > 0.2


def test_a_map_that_rises_with_the_score_does_not_fall():
    score, covariates, label = sample(400, noise=0.0)
    assert falls(fit(score, covariates, label), score, covariates) == 0


def test_a_drop_due_to_rounding_counts_as_zero():
    flat = Monotone(np.array([0.0, 1.0]), np.array([0.5, 0.5 - 1e-15]))
    assert (
        falls(
            TwoStage(rising_and_falling().index, flat, Monotone(flat.knots, flat.knots)),
            np.array([0.0, 0.5]),
            np.zeros((2, 1)),
        )
        == 0
    )
