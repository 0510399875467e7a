"""The design of labels: densities, probabilities, and which prompts are chosen."""

from __future__ import annotations

import numpy as np
import pytest

from arena_cje.data.coverage import ONE, entry
from arena_cje.estimation.label_design import LOSS, UNIFORM, chosen, densities, probabilities
from arena_cje.simulate import Target, World, draw

NAN = float("nan")
NUMBER = np.array([entry(k) / ONE for k in range(1000)])


def far_scores(shift: float = -2.5, n: int = 1000, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scores of the base (n,) and of a target (n, 1)."""
    logged, draws, _ = draw(World({"far": Target(shift)}), n, seed)
    return logged.judge_score, [one.judge_score for one in draws.values()]


def test_labels_are_dense_at_scores_where_a_target_has_responses_and_the_base_has_few():
    base, (target,) = far_scores()
    density = densities(base, [target])
    assert density.mean() == pytest.approx(1) and density.min() >= UNIFORM
    assert density[base < 0.1].mean() > 2 > density[base > 0.5].max()


def test_densities_of_two_cells_by_hand():
    """Two cells: nine tenths of the base's responses in the first, nine tenths of the target's in the second."""
    base, target = np.repeat([0.2, 0.8], [90, 10]), np.repeat([0.2, 0.8], [10, 90])[:, None]
    share = np.array([[0.9, 0.1], [0.1, 0.9]])
    optimal = np.array([1.0, 9.0]) / 1.8
    density = densities(base, [target])
    low, high = density[0], density[-1]
    uniform = (low - optimal[0]) / (1 - optimal[0])
    assert high == pytest.approx(uniform + (1 - uniform) * optimal[1])
    variance = share**2 / share[0]
    loss = (variance / [low, high]).sum(axis=1) / variance.sum(axis=1)
    assert max(loss) <= LOSS < max(loss) + 0.02  # the least uniform design that no policy pays much for


@pytest.mark.parametrize("shift", [0.0, 0.5, -1.0, -2.5, -6.0])
def test_the_mean_label_of_the_base_has_a_variance_little_above_that_of_labels_at_random(shift):
    base, targets = far_scores(shift)
    assert np.mean(1 / densities(base, targets)) <= LOSS + 1e-9


def test_equal_scores_or_missing_scores_give_the_uniform_design():
    base, _ = far_scores()
    for scores, targets in ((base, []), (base, [base[:, None]]), (np.full(50, 0.5), [np.full((50, 2), 0.5)])):
        assert densities(scores, targets) == pytest.approx(1)
    assert (densities(np.full(20, NAN), [np.full((20, 1), 0.5)]) == 1).all()
    some = densities(np.where(np.arange(1000) < 10, NAN, base), [far_scores()[1][0]])
    assert (some[:10] == 1).all() and some.mean() == pytest.approx(1)


def test_probabilities_sum_to_the_labels_and_grow_with_them():
    density = densities(*far_scores())
    before = np.zeros(1000)
    for labels in (1, 20, 100, 500, 999, 1000):
        probability = probabilities(density, labels)
        assert probability.sum() == pytest.approx(labels)
        assert (probability >= before).all() and probability.min() >= UNIFORM * labels / 1000 and probability.max() <= 1
        before = probability
    assert (before == 1).all()


def test_more_labels_contain_all_prompts_chosen_for_fewer():
    density = densities(*far_scores())
    before = np.zeros(1000, dtype=bool)
    for labels in (0, 10, 50, 51, 300, 1000):
        mask = chosen(density, NUMBER, labels)
        assert mask.sum() == labels and (before <= mask).all()
        before = mask


def test_prompts_are_chosen_with_their_probabilities():
    density, rng = densities(*far_scores()), np.random.default_rng(0)
    probability = probabilities(density, 100)
    often = np.mean([chosen(density, rng.permutation(NUMBER), 100) for _ in range(2000)], axis=0)
    for part in np.array_split(np.argsort(probability), 5):
        assert often[part].mean() == pytest.approx(probability[part].mean(), rel=0.02)


def test_a_small_change_of_the_design_keeps_most_chosen_prompts():
    one, other = densities(*far_scores()), densities(*far_scores(-2.0))
    same = chosen(one, NUMBER, 100) & chosen(other, NUMBER, 100)
    assert same.sum() >= 80
