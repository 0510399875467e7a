"""Intervals of policy values cover the expected label, whatever the number of votes: their noise is part of the labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arena_cje.estimation.records import Options
from arena_cje.evaluation.evaluate import evaluate
from arena_cje.labeling import aggregation, agreement
from arena_cje.labeling.records import Scale, Vote
from arena_cje.results.validation import truth
from arena_cje.simulate import World, draw
from labeling_study import SCALE

N_ITEMS = 50
N_RUNS = 200
WORLD = replace(World(), coverage=N_ITEMS)


def labels_by_people(expected: np.ndarray, n_votes: int, rng: np.random.Generator) -> np.ndarray:
    """Labels out of simulated votes of 1 to 5 whose mean is the expected label in [0, 1]; NaN where it is NaN."""
    rows = np.flatnonzero(np.isfinite(expected))
    scores = 1 + rng.binomial(4, expected[rows][:, None], (len(rows), n_votes))
    votes = [
        Vote(f"{row:06d}", f"r{rater}", float(score), "simulated")
        for row, row_scores in zip(rows, scores, strict=True)
        for rater, score in enumerate(row_scores)
    ]
    label = np.full(len(expected), np.nan)
    label[rows] = aggregation.aggregate(agreement.ratings(votes, SCALE)).value
    return label


@pytest.mark.parametrize("votes", [1, 2, 3, 5])
def test_intervals_cover_the_expected_label(votes):
    """Of 200 intervals at a true coverage of .95, 181 or fewer cover with probability .01."""
    hits_by_policy: dict[str, list[bool]] = {}
    for seed in range(N_RUNS):
        logged, draws, values = draw(WORLD, 400, seed)
        rng = np.random.default_rng([seed, votes])
        logged = replace(logged, oracle_label=labels_by_people(logged.oracle_label, votes, rng))
        evaluation = evaluate("direct", logged, draws, Options(seed=seed))
        for policy, estimate in {"base": evaluation.base, **evaluation.estimates}.items():
            low, high = estimate.interval()
            hits_by_policy.setdefault(policy, []).append(low <= values[policy] <= high)
    shares = {policy: np.mean(hits) for policy, hits in hits_by_policy.items()}
    assert min(shares.values()) >= 0.91
    assert np.mean(list(shares.values())) >= 0.93


def test_more_votes_make_shorter_intervals():
    widths = {}
    for votes in (1, 3):
        logged, draws, _ = draw(WORLD, 400, 1)
        label = labels_by_people(logged.oracle_label, votes, np.random.default_rng(votes))
        low, high = evaluate("direct", replace(logged, oracle_label=label), draws, Options(seed=1)).base.interval()
        widths[votes] = high - low
    assert widths[3] < widths[1]


def test_intervals_cover_where_biases_of_raters_are_removed():
    """Three of six raters vote on each item, and the panel has no bias as a whole.

    Raters use the middle half of their scale: no vote and no label is cut at its ends.
    """
    scale, hits = Scale(0, 1, 1e-6), []
    for seed in range(120):
        logged, draws, values = draw(WORLD, 400, seed)
        rng = np.random.default_rng([7, seed])
        rows = np.flatnonzero(np.isfinite(logged.oracle_label))
        bias = rng.normal(0, 0.1, 6)
        bias -= bias.mean()
        votes = [
            Vote(f"{row:06d}", f"r{j}", 0.25 + 0.5 * (logged.oracle_label[row] + bias[j] + rng.normal(0, 0.15)), "")
            for row in rows
            for j in rng.choice(6, 3, replace=False)
        ]
        label = np.full(len(logged.oracle_label), np.nan)
        label[rows] = aggregation.aggregate(agreement.ratings(votes, scale), "two_way").value
        evaluation = evaluate("direct", replace(logged, oracle_label=label), draws, Options(seed=seed))
        for policy, estimate in {"base": evaluation.base, **evaluation.estimates}.items():
            low, high = estimate.interval()
            hits.append(low <= 0.25 + 0.5 * values[policy] <= high)
    assert np.mean(hits) >= 0.93


def test_estimates_agree_with_labels_of_other_prompts():
    """A quarter of 200 labelled prompts calibrates; the error of the estimate covers its distance to the truth of the others."""
    world, agreements, truth_errors = replace(WORLD, coverage=4 * N_ITEMS), [], []
    for seed in range(N_RUNS):
        logged, draws, values = draw(world, 400, seed)
        rng = np.random.default_rng([11, seed])
        label = labels_by_people(logged.oracle_label, 3, rng)
        calibrates = np.zeros(len(label), bool)
        calibrates[rng.permutation(np.flatnonzero(logged.labelled))[:N_ITEMS]] = True
        apart = replace(logged, oracle_label=np.where(calibrates, label, np.nan))
        estimate = evaluate("direct", apart, draws, Options(seed=seed)).base
        value, se = truth(np.where(calibrates, np.nan, label)[:, None], logged.judge_score[:, None])
        low, high = estimate.interval()
        agreements.append(abs(estimate.value - value) <= np.hypot((high - low) / 2, 1.96 * se))
        truth_errors.append((value - values["base"], se))
    assert np.mean(agreements) >= 0.93
    error = np.array(truth_errors)
    assert abs(error[:, 0].mean()) < 3 * error[:, 0].std() / N_RUNS**0.5  # the truth has no bias
