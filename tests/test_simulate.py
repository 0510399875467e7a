"""The simulated worlds have their declared properties: values, weights, transport, scores and labels, in large samples."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from arena_cje.simulate import ARENA_LEVELS, WORLDS, Target, World, draw, truth

if TYPE_CHECKING:
    from arena_cje.estimation.records import Draws, Logged

N = 200_000  # logged rows; with ten draws of each, two million labels of a target
WITHOUT_OVERLAP = {"poor_overlap", "no_transport", "heavy_tails"}  # variances of the weights out of reach, or infinite
LABELS_OF_THEIR_OWN = {"no_transport", "no_transport_hidden"}  # no weights lead to the target's labels
ARENA = {  # of a thousand answers, how many a judge gave each score
    0.1: 6, 0.2: 7, 0.3: 3, 0.45: 5, 0.5: 14, 0.55: 16, 0.65: 6, 0.7: 79, 0.75: 2, 0.85: 608, 0.9: 50, 0.95: 123, 1.0: 81,
}  # fmt: skip
TRANSPORTS = ["healthy", "nonlinear", "poor_overlap", "heavy_tails", "judge_noise", "clustered", "binary"]


@pytest.fixture(scope="module", params=WORLDS)  # of a module: tests of one world run together and share its sample
def name(request) -> str:
    return request.param


@lru_cache(maxsize=1)
def labelled_sample(name: str) -> tuple[World, Logged, dict[str, Draws], dict[str, float]]:
    """A large sample in which every response has its label."""
    world = replace(WORLDS[name], coverage=1.0, target_labels=1.0, draws_per_prompt=10)
    return world, *draw(world, N, seed=11)


def mean_and_error(values, prompt_id) -> tuple[float, float]:
    """Mean of values (n,) or (n, m) over rows, and its standard error over prompts."""
    per_row = values.reshape(len(values), -1).mean(axis=1)
    starts = np.flatnonzero(np.append(True, prompt_id[1:] != prompt_id[:-1]))
    prompt_sums = np.add.reduceat(per_row - per_row.mean(), starts)
    return per_row.mean(), np.sqrt(np.sum(prompt_sums**2)) / len(per_row)


def assert_mean(values, expected, prompt_id) -> None:
    mean, error = mean_and_error(values, prompt_id)
    assert abs(mean - expected) < 4 * error, f"{mean} is {abs(mean - expected) / error:.1f} errors from {expected}"


def same(one, other) -> bool:
    """Equal in every field, NaN for NaN."""
    pairs = [(getattr(one, part.name), getattr(other, part.name)) for part in fields(one)]
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if isinstance(a, np.ndarray) else a == b for a, b in pairs
    )


def quality_seen(world: World, judged) -> np.ndarray:
    """Quality computed from the score, from the middle one where the judge has a distribution over scores."""
    middle = judged.points[..., judged.points.shape[-1] // 2]
    return (ndtri(np.minimum(middle, 1 - 1e-16)) - world.judge_intercept) / world.judge_slope


def mean_label_at(world: World, quality, style=0.0, variance=0.0) -> np.ndarray:
    """Phi((a + b A + d B) / sqrt(1 + sigma^2 + variance)), with the variance of the unknown parts of A and B."""
    latent = world.intercept + world.slope * quality + world.label_style * style
    return ndtr(latent / np.sqrt(1 + world.noise**2 + variance))


class TestLarge:
    """Properties of every world, in a large sample of each."""

    def test_the_truth_is_the_mean_label_of_the_targets_own_responses(self, name):
        _, logged, draws, values = labelled_sample(name)
        assert set(values) == {"base", *logged.policies} and tuple(draws) == logged.policies
        assert_mean(logged.oracle_label, values["base"], logged.prompt_id)
        for policy, policy_draws in draws.items():
            assert policy_draws.policy == policy
            assert_mean(policy_draws.oracle_label, values[policy], logged.prompt_id)

    def test_weights_have_mean_one_and_lead_to_the_truth(self, name):
        _, logged, _, values = labelled_sample(name)
        weights = np.exp(logged.log_ratio)
        for policy, weight in zip(logged.policies, weights.T, strict=True):
            if policy == "clone":
                assert (weight == 1).all()
            elif name not in WITHOUT_OVERLAP:
                assert_mean(weight, 1, logged.prompt_id)
                if name not in LABELS_OF_THEIR_OWN:
                    assert_mean(weight * logged.oracle_label, values[policy], logged.prompt_id)

    def test_records_are_whole(self, name):
        _, logged, draws, _ = labelled_sample(name)
        n, m = len(logged.prompt_id), 10
        assert n == N and logged.log_ratio.shape == (n, len(draws)) and np.isfinite(logged.log_ratio).all()
        for record, shape in [(logged, (n,)), *((policy_draws, (n, m)) for policy_draws in draws.values())]:
            assert record.judge_score.shape == record.oracle_label.shape == shape
            for values in (record.judge_score, record.oracle_label):
                assert values.min() >= 0 and values.max() <= 1
            judged = record.judged
            assert judged.covariates.shape == (*shape, int(bool(WORLDS[name].judge_style)))
            assert judged.points.shape == judged.mass.shape == (*shape, 3 if name == "judge_noise" else 1)

    def test_the_mean_label_at_a_score_is_the_same_for_every_policy(self, name):
        """In the mean, and over the better half of the base's scores alone."""
        if name not in TRANSPORTS:
            return
        world, logged, draws, _ = labelled_sample(name)
        middle = np.median(logged.judge_score)
        for record in (logged, *draws.values()):
            residual = record.oracle_label - mean_label_at(world, quality_seen(world, record.judged))
            assert_mean(residual, 0, logged.prompt_id)
            assert_mean(np.where(record.judge_score > middle, residual, 0), 0, logged.prompt_id)

    def test_few_responses_tie_unless_the_judge_has_few_scores(self, name):
        _, logged, _, _ = labelled_sample(name)
        if name == "few_scores":
            scores, count = np.unique(logged.judge_score, return_counts=True)
            expected = np.array(list(ARENA.values())) / 1000
            assert scores.tolist() == list(ARENA)
            assert np.abs(count / N - expected).max() < 4 * np.sqrt(0.25 / N)
            assert (np.abs(count / N - expected) < 4 * np.sqrt(expected / N)).all()
        else:
            assert len(np.unique(logged.judge_score)) > 0.999 * N


def test_few_scores_transport_at_each_of_them():
    world, logged, draws, _ = labelled_sample("few_scores")
    for score, _ in ARENA_LEVELS:
        means, errors = [], []
        for record in (logged, *draws.values()):
            at, label = record.judge_score == score, record.oracle_label
            mean = label[at].mean()
            error = mean_and_error(np.where(at, label - mean, 0), logged.prompt_id)[1]
            means.append(mean)
            errors.append(error / at.mean())
        assert np.ptp(means) < 4 * np.hypot(*sorted(errors)[-2:]), score
    assert all(np.unique(policy_draws.judge_score).size == 13 for policy_draws in draws.values())


def test_a_covariate_restores_the_transport_that_the_score_alone_lacks():
    world, logged, draws, values = labelled_sample("covariate_bias")
    spread = 1 + world.judge_style**2  # of Phi^-1(S) = A + l B, of which A has the share 1 / spread
    for record in (logged, *draws.values()):
        style = record.covariates[..., 0]
        latent_score = ndtri(record.judge_score)
        knowing_both = mean_label_at(world, latent_score - world.judge_style * style)
        assert_mean(record.oracle_label - knowing_both, 0, logged.prompt_id)
        by_score = mean_label_at(world, latent_score / spread, variance=world.slope**2 * world.judge_style**2 / spread)
        if record is logged:
            assert_mean(record.oracle_label - by_score, 0, logged.prompt_id)
        else:
            assert by_score.mean() > values[record.policy] + 0.05  # longer answers look better than they are


def test_what_the_judge_does_not_see_breaks_transport_but_not_the_weights():
    """The tests of all worlds show that weights still lead to the truth."""
    world, logged, draws, values = labelled_sample("style_matters")
    by_score = mean_label_at(world, ndtri(logged.judge_score), variance=world.label_style**2)
    assert_mean(logged.oracle_label - by_score, 0, logged.prompt_id)
    on_target = mean_label_at(world, ndtri(draws["worse"].judge_score), variance=world.label_style**2)
    assert on_target.mean() > values["base"] > values["worse"]  # calibration puts the target on the wrong side
    assert on_target.mean() > values["worse"] + 0.05


def test_an_unseen_shift_is_in_scores_and_labels_and_in_no_weight():
    world = World({"plain": Target(0.0, 0.5), "unseen": Target(0.0, 0.5, unseen=-1.0), "seen": Target(-1.0, 0.5)})
    full = replace(world, coverage=1.0, target_labels=1.0, draws_per_prompt=5)
    logged, draws, values = draw(full, 50_000, seed=3)
    assert values["unseen"] == values["seen"] < values["plain"] == values["base"]
    np.testing.assert_array_equal(logged.log_ratio[:, 1], logged.log_ratio[:, 0])
    for policy in world.targets:
        assert_mean(draws[policy].oracle_label, values[policy], logged.prompt_id)
    # The same shift, seen or not, gives the same responses; weights lead to its value only where they include it.
    weight = np.exp(logged.log_ratio)
    assert_mean(weight[:, 1] * logged.oracle_label, values["plain"], logged.prompt_id)
    assert_mean(weight[:, 2] * logged.oracle_label, values["seen"], logged.prompt_id)
    np.testing.assert_allclose(draws["unseen"].judge_score.mean(), draws["seen"].judge_score.mean(), atol=0.005)


def test_a_hidden_drop_leaves_scores_and_lowers_labels():
    world, logged, draws, values = labelled_sample("no_transport_hidden")
    hidden = draws["worse"]
    assert_mean(hidden.judge_score, logged.judge_score.mean(), logged.prompt_id)
    quality = ndtri(hidden.judge_score)
    drop = world.targets["worse"].drop
    lowered_labels = mean_label_at(replace(world, intercept=world.intercept - drop), quality)
    assert_mean(hidden.oracle_label - lowered_labels, 0, logged.prompt_id)
    assert mean_label_at(world, quality).mean() > values["worse"] + 0.1
    weighted = np.exp(logged.log_ratio[:, 0]) * logged.oracle_label
    assert_mean(weighted, values["base"], logged.prompt_id)  # weights do not see it either


def test_an_unhelpful_target_leaves_the_labelled_support_and_the_curve():
    world, logged, draws, values = labelled_sample("no_transport")
    unhelpful = draws["unhelpful"]
    lowest = np.quantile(logged.judge_score, 0.05)
    assert (unhelpful.judge_score < lowest).mean() > 0.5
    expected = mean_label_at(world, ndtri(unhelpful.judge_score))
    assert expected.mean() > values["unhelpful"] + 0.05


def test_poor_overlap_is_a_matter_of_weights_alone():
    shares = []
    for seed in range(40):
        weight = np.exp(draw(WORLDS["poor_overlap"], 1000, seed)[0].log_ratio[:, 0])
        shares.append(weight.sum() ** 2 / np.sum(weight**2) / len(weight))
    assert 0.01 < np.median(shares) < 0.08
    values = truth(WORLDS["poor_overlap"])
    assert abs(values["better"] - values["base"]) < 0.05


TAIL = World({"far": Target(tail=1.5)}, judge_style=0.5)


def test_heavy_tails_have_their_index_and_mean_one():
    """P(W > w) = ((1 - 1/tail) / w)^tail, and weights above w have the mass ((1 - 1/tail) / w)^(tail - 1)."""
    logged, _, _ = draw(TAIL, N, seed=3)
    weight = np.exp(logged.log_ratio[:, 0])
    assert weight.min() > 1 / 3 - 1e-12
    for w in (0.5, 1, 10, 100):
        assert_mean(weight > w, (1 / 3 / w) ** 1.5, logged.prompt_id)
        assert_mean(np.where(weight > w, 0, weight), 1 - (1 / 3 / w) ** 0.5, logged.prompt_id)


def test_the_weights_of_the_heavy_tailed_world_lead_to_the_truth_but_for_their_tail():
    """Weights cut at 100 lose the mass sqrt(1 / 300) of the target, independently of quality: the rest is V."""
    _, logged, _, values = labelled_sample("heavy_tails")
    target = WORLDS["heavy_tails"].targets["better"]
    quality = draw(World({"same": Target(target.shift)}), N, seed=11)[0].log_ratio[:, 0]
    style_weight = np.exp(logged.log_ratio[:, 0] - quality)
    assert style_weight.min() > 1 / 3 - 1e-9
    weight = np.where(style_weight > 100, 0, np.exp(logged.log_ratio[:, 0])) / (1 - np.sqrt(1 / 300))
    assert_mean(weight, 1, logged.prompt_id)
    assert_mean(weight * logged.oracle_label, values["better"], logged.prompt_id)


@pytest.mark.parametrize("target", [Target(tail=1.5), Target(style=0.7)])
def test_fresh_styles_follow_the_law_that_the_weights_name(target):
    """Tested below some style, since above it the heavy weights have infinite variance."""
    logged, draws, _ = draw(replace(TAIL, targets={"far": target}), N, seed=5)
    style, fresh = logged.covariates[:, 0], draws["far"].covariates[..., 0]
    weight = np.exp(logged.log_ratio[:, 0])
    for edge in (-1.0, 0.0, 1.5):
        share, error = mean_and_error(fresh < edge, logged.prompt_id)
        weighted, spread = mean_and_error(np.where(style < edge, weight, 0), logged.prompt_id)
        assert abs(share - weighted) < 4 * np.hypot(error, spread)


def test_many_levels_are_the_continuous_world():
    targets = {"up": Target(0.6), "down": Target(-0.6, drop=0.3)}
    fine = tuple((score, 1.0) for score in np.linspace(0, 1, 20_000))
    assert truth(World(targets, levels=fine)) == pytest.approx(truth(World(targets)), abs=1e-6)


def test_a_judge_that_is_not_sure_spreads_its_mass_about_its_score():
    world = WORLDS["judge_noise"]
    logged, draws, _ = draw(world, 1000, seed=0)
    for record in (logged, *draws.values()):
        points, mass = record.judge_points, record.judge_mass
        assert mass.sum(axis=-1) == pytest.approx(1)
        assert record.judge_score == pytest.approx((points * mass).sum(axis=-1))
        latent = ndtri(points)
        middle = (latent * mass).sum(axis=-1, keepdims=True)
        assert ((latent - middle) ** 2 * mass).sum(axis=-1) == pytest.approx(world.judge_spread**2)
        order = np.argsort(record.judge_score, axis=0)
        assert (np.diff(np.take_along_axis(middle[..., 0], order, axis=0), axis=0) >= 0).all()


def test_a_saturating_judge_has_the_order_of_a_plain_one():
    """Its scores alone differ: a third of them lie within .05 of the top."""
    saturating = WORLDS["nonlinear"]
    plain = replace(saturating, judge_intercept=0.0, judge_slope=1.0)
    (logged, draws, values), (plain_logged, plain_draws, plain_values) = draw(saturating, 2000, 0), draw(plain, 2000, 0)
    assert np.argsort(logged.judge_score).tolist() == np.argsort(plain_logged.judge_score).tolist()
    assert np.argsort(draws["worse"].judge_score, axis=0).tolist() == (
        np.argsort(plain_draws["worse"].judge_score, axis=0).tolist()
    )
    assert values == plain_values and 0.3 < (logged.judge_score > 0.95).mean() < 0.45


def test_prompts_repeat_with_their_draws_their_effects_and_their_labels():
    world = replace(WORLDS["clustered"], target_labels=0.5)
    logged, draws, _ = draw(world, 9000, seed=0)
    names, first, code, count = np.unique(logged.prompt_id, return_index=True, return_inverse=True, return_counts=True)
    assert len(names) == 3000 and np.bincount(count).tolist() == [0, 0, 1000, 1000, 1000]
    assert (count[np.argsort(first)][:6] == [2, 3, 4, 2, 3, 4]).all()
    assert np.isin(np.bincount(code, logged.labelled) / count, [0, 1]).all()  # all rows of a prompt, or none
    better = draws["better"]
    assert better.judge_score.shape == (9000, 3)
    for values in (better.judge_score, better.oracle_label):
        assert np.array_equal(values, values[first][code], equal_nan=True)
    quality = ndtri(logged.judge_score)
    neighbours = logged.prompt_id[1:] == logged.prompt_id[:-1]
    within = np.corrcoef(quality[1:][neighbours], quality[:-1][neighbours])[0, 1]
    assert within == pytest.approx(world.prompt_share, abs=0.03)
    between = np.corrcoef(quality[1:][~neighbours], quality[:-1][~neighbours])[0, 1]
    assert abs(between) < 0.08


def test_a_prompt_has_one_row_unless_told_otherwise():
    logged, _, _ = draw(World(), 300, seed=0)
    assert len(set(logged.prompt_id)) == 300


def test_binary_labels_are_drawn_with_the_probability_that_the_label_was():
    world = WORLDS["binary"]
    assert truth(world) == truth(replace(world, binary=False))
    logged, draws, _ = draw(replace(world, target_labels=1.0), 500, seed=0)
    assert set(logged.oracle_label[logged.labelled]) == {0.0, 1.0}
    assert set(draws["better"].oracle_label.ravel()) == {0.0, 1.0}


@pytest.mark.parametrize("coverage, rows", [(0.0, 0), (0.05, 50), (0.25, 250), (1.0, 1000), (10, 10), (30, 30)])
def test_labels_are_counted(coverage, rows):
    logged, draws, _ = draw(World(coverage=coverage, target_labels=coverage), 1000, seed=0)
    assert logged.labelled.sum() == rows
    assert all((~np.isnan(policy_draws.oracle_label)).sum() == rows for policy_draws in draws.values())


def test_every_prompt_is_as_likely_to_be_labelled():
    world = World(coverage=0.2, target_labels=0.2, draws_per_prompt=2)
    logged, fresh = np.zeros(40), np.zeros((40, 2))
    for seed in range(2000):
        base_sample, draws, _ = draw(world, 40, seed)
        logged += base_sample.labelled
        fresh += ~np.isnan(draws["clone"].oracle_label)
    error = np.sqrt(0.2 * 0.8 / 2000)
    for share in (logged / 2000, fresh / 2000):
        assert np.abs(share - 0.2).max() < 4.5 * error


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_a_seed_names_a_draw(world):
    world = replace(world, target_labels=0.5)
    one, again, other = draw(world, 60, 1), draw(world, 60, 1), draw(world, 60, 2)
    assert same(one[0], again[0]) and all(same(one[1][policy], again[1][policy]) for policy in one[1])
    assert not same(one[0], other[0]) and one[2] == other[2]
    assert all(not same(one[1][policy], other[1][policy]) for policy in one[1])


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_more_labels_change_nothing_but_their_number(world):
    few = replace(world, coverage=0.1, target_labels=0.0)
    more = replace(few, coverage=0.6, target_labels=0.3)
    most = replace(few, coverage=0.6, target_labels=0.6)
    (logged, none, _), (fuller, some, _), (_, many, _) = (draw(world, 200, 1) for world in (few, more, most))
    assert same(logged, replace(fuller, oracle_label=np.where(logged.labelled, fuller.oracle_label, np.nan)))
    for policy, policy_draws in none.items():
        label, fuller_label = some[policy].oracle_label, many[policy].oracle_label
        assert same(policy_draws, replace(some[policy], oracle_label=np.full(label.shape, np.nan)))
        assert np.array_equal(label, np.where(np.isnan(label), np.nan, fuller_label), equal_nan=True)


def test_what_is_shared_between_draws_cannot_be_written_to():
    logged, _, _ = draw(World(), 10, 0)
    with pytest.raises(ValueError, match="read-only"):
        logged.prompt_id[0] = "other"


def test_combinations_without_a_known_truth_are_refused():
    with pytest.raises(ValueError, match="tail must be above 1.*got 1.0"):
        Target(tail=1.0)
    with pytest.raises(ValueError, match="a style or a tail"):
        Target(style=0.5, tail=2.0)
    with pytest.raises(ValueError, match="not for both at once"):
        World({"far": Target(tail=2.0)}, label_style=0.1)
    with pytest.raises(ValueError, match="levels fix the judge's scores"):
        World(levels=ARENA_LEVELS, judge_slope=2.0)


def test_strictness_joins_the_labels_of_a_prompt_and_leaves_the_truth():
    """Residuals of labels given quality correlate between policies by h, and the mean label is the truth."""
    world = World({"clone": Target()}, coverage=1.0, target_labels=1.0, strictness=0.6)
    logged, draws, values = draw(world, 100_000, 0)
    assert values == truth(replace(world, strictness=0.0))
    score, label = draws["clone"].judge_score[:, 0], draws["clone"].oracle_label[:, 0]
    latent = [
        (ndtri(y) - world.intercept - world.slope * ndtri(s)) / world.noise
        for y, s in ((label, score), (logged.oracle_label, logged.judge_score))
    ]
    assert np.corrcoef(latent)[0, 1] == pytest.approx(0.6, abs=0.01)
    assert np.std(latent, axis=1) == pytest.approx([1, 1], abs=0.01)
    assert label.mean() == pytest.approx(values["clone"], abs=0.003)
    with pytest.raises(ValueError, match=r"strictness must lie in \[0, 1\]"):
        World(strictness=1.5)


def test_labels_of_a_paired_world_lie_on_the_same_prompts():
    world = World(paired=True, coverage=40, target_labels=40, draws_per_prompt=2)
    logged, draws, _ = draw(world, 200, 0)
    for one in draws.values():
        assert (~np.isnan(one.oracle_label[:, 0]) == logged.labelled).all() and np.isnan(one.oracle_label[:, 1]).all()
    _, more, _ = draw(replace(world, target_labels=250), 200, 0)
    for policy, one in more.items():
        assert (~np.isnan(one.oracle_label)).sum(axis=0).tolist() == [200, 50]
        first = draws[policy].oracle_label[logged.labelled]
        assert (one.oracle_label[logged.labelled, 0] == first[:, 0]).all()
