"""The price of labels by people before any response exists, compared with the price of the batches themselves."""

from __future__ import annotations

import pytest

from arena_cje.config.records import Config
from arena_cje.labeling import tasks
from arena_cje.money.account import Account
from arena_cje.money.people import batch_costs
from labeling_study import answers, make

POLICIES = {"base": {"model": "m"}, "other": {"model": "m"}}


def config(batches: dict, oracle: str = "human", target_labels: float | None = 0.1, usd: float | None = 0.08) -> Config:
    labeling = {"batches": batches, "usd_per_vote": usd, "duplicates": 0.1}
    return Config.model_validate(
        {"policies": POLICIES, "oracle": {"provider": oracle, "target_labels": target_labels}, "labeling": labeling}
    )


def test_the_predicted_price_is_that_of_the_batches_where_no_responses_are_equal():
    study = config({"first": {"coverage": 0.05}, "second": {"coverage": 0.2}})
    costs = batch_costs(study, 200)
    assert len(answers(200, ("base", "other"))) == 400
    options = {"policies": ("base", "other"), "shares": study.human_shares}
    first = make(limit=tasks.Limit(coverage=0.05), **options)
    second = make("second", limit=tasks.Limit(coverage=0.2), earlier=first.key, **options)
    assert [(cost.n_votes, cost.usd) for cost in costs] == [(batch.n_votes, batch.usd) for batch in (first, second)]


def test_the_predicted_price_of_a_batch_with_a_limit_is_the_limit():
    costs = batch_costs(config({"a": {"labels": 100}, "b": {"usd": 4.0}}), 50)
    assert [cost.n_votes for cost in costs] == [100, 50]
    assert [cost.usd for cost in costs] == pytest.approx([8.0, 4.0])
    (unknown,) = batch_costs(config({"a": {"labels": 100}}, usd=None), 50)
    assert (unknown.n_votes, unknown.usd) == (100, None)


def test_the_price_of_votes_is_below_the_table_of_calls():
    study = config({"a": {"usd": 4.0}, "b": {"coverage": 0.5}})
    account = Account((), (), {}, None, batch_costs(study, 50))
    assert account.table().splitlines()[1] == "Labelling batch a takes at most 50 votes of people for 4.00 US dollars."
    assert account.document()["people"][0] == {"batch": "a", "n_votes": 50, "usd": pytest.approx(4.0)}


def test_a_batch_limited_to_54_votes_costs_54_times_the_price_of_a_vote():
    limited_study = Config.model_validate(
        {"policies": POLICIES, "oracle": {"provider": "human"},
         "labeling": {"batches": {"all": {"labels": 54}}, "usd_per_vote": 0.08, "duplicates": 0.0}}
    )  # fmt: skip
    (cost,) = batch_costs(limited_study, 72)
    assert (cost.n_votes, cost.usd) == (54, pytest.approx(4.32))


def test_labels_by_people_cost_the_same_beside_another_oracle():
    batches = {"first": {"coverage": 0.5}}
    assert batch_costs(config(batches, oracle="reference"), 100) == batch_costs(config(batches), 100)
    assert batch_costs(config({}, oracle="reference"), 100) == []


def test_the_predicted_price_includes_votes_on_texts_for_validation():
    study = Config.model_validate(
        {"policies": POLICIES, "oracle": {"provider": "human", "truth": 0.3}, "coverages": ["0.1"],
         "labeling": {"batches": {"all": {"coverage": 0.3}}, "usd_per_vote": 0.08, "duplicates": 0.1}}
    )  # fmt: skip
    options = {"policies": ("base", "other"), "shares": study.human_shares, "validation": study.validation_span}
    batch = make(limit=tasks.Limit(coverage=0.3), **options)
    assert [(cost.n_votes, cost.usd) for cost in batch_costs(study, 200)] == [(batch.n_votes, batch.usd)]
    assert {row.policy for row in batch.key} == {"base", "other"}
