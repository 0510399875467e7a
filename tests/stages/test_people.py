"""Labels of people for validation alone: no vote on them enters an estimate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from arena_cje.data.coverage import has_label
from arena_cje.labeling import labels, tasks
from arena_cje.labeling.votes import Ballot
from arena_cje.stages import people
from labeling_study import SCALE, make, simulated_votes

N, SPAN = 400, (0.1, 0.4)
PROMPTS = [{"prompt_id": f"q{i}"} for i in range(N)]
RESPONSES = [{"prompt_id": f"q{i}", "draw_idx": 0, "status": "ok"} for i in range(N)]
BIAS = {"ann": 0.2, "bob": 0.0, "cy": -0.2}


@pytest.fixture(scope="module")
def batch() -> tasks.Batch:
    shares = {"base": 1.0, "other": 0.05}
    return make(n=N, policies=("base", "other"), limit=tasks.Limit(coverage=0.4), shares=shares, validation=SPAN)


@pytest.fixture(scope="module")
def votes(batch):
    """Votes of raters with biases, each of whom leaves out a third of the texts, so that biases enter the labels."""
    expected = {row.item_id: 0.3 + 0.4 * int(row.item_id[:8], 16) / 0xFFFFFFFF for row in batch.key}
    raters = list(BIAS)
    all_votes = [vote for vote in simulated_votes(batch, expected, BIAS, noise=0.05) if vote.item_id in expected]
    return [vote for vote in all_votes if int(vote.item_id[-4:], 16) % 3 != raters.index(vote.annotator_id)]


def labels_of(batch, votes, apart) -> labels.Labelled:
    return labels.make(Ballot(tuple(votes), (), (), (), len(batch.key), 0), SCALE, apart=apart)


@pytest.fixture(scope="module")
def apart(batch):
    return people.items_of(batch.key, PROMPTS, SPAN)


def test_each_label_is_used_either_for_estimates_or_for_validation(batch, votes, apart):
    labelled = labels_of(batch, votes, apart).rows
    assert {row["item_id"] for row in labelled} == {row.item_id for row in batch.key}
    prompts = {}
    for policy, coverage in (("base", 0.1), ("other", 0.05)):
        estimation = people.grades(RESPONSES, policy, coverage, batch.key, labelled)
        validation = people.grades(RESPONSES, policy, SPAN[1], batch.key, labelled, above=SPAN[0])
        assert all(row["score"] is not None for row in estimation + validation)
        assert {row["item"] for row in validation} <= apart
        assert not {row["item"] for row in estimation} & apart
        prompts[policy] = {row["prompt_id"] for row in validation}
    assert prompts["base"] == prompts["other"]
    assert len(prompts["base"]) == sum(has_label(i, 0.4) and not has_label(i, 0.1) for i in range(N))


def test_no_vote_for_validation_enters_a_label_of_an_estimate(batch, votes, apart):
    """Nor does it through the biases of raters, which are estimated from many votes."""
    before = labels_of(batch, votes, apart)
    assert before.report["aggregation"]["model"] == before.report["aggregation_of_validation"]["model"] == "two_way"
    changed = [
        replace(vote, score=1.0 + (vote.annotator_id == "ann")) if vote.item_id in apart else vote for vote in votes
    ]
    after = labels_of(batch, changed, apart)
    for policy, coverage in (("base", 0.1), ("base", 0.05), ("other", 0.05)):
        grades_of_estimates = [
            people.grades(RESPONSES, policy, coverage, batch.key, labelled.rows) for labelled in (before, after)
        ]
        assert grades_of_estimates[0] == grades_of_estimates[1]
    assert before.report["aggregation"] == after.report["aggregation"]
    grades_of_validation = [
        people.grades(RESPONSES, "base", SPAN[1], batch.key, labelled.rows, above=SPAN[0])
        for labelled in (before, after)
    ]
    assert grades_of_validation[0] != grades_of_validation[1]
    together = [labels_of(batch, ballot_votes, ()).report["aggregation"]["biases"] for ballot_votes in (votes, changed)]
    assert together[0] != together[1]


def test_votes_on_validation_items_alone_give_no_labels_for_estimates(batch, votes, apart):
    labelled = labels_of(batch, [vote for vote in votes if vote.item_id in apart], apart)
    assert labelled.report["aggregation"] is None
    assert {row["item_id"] for row in labelled.rows} == apart
