"""Planned looks: what decides, what is spent, and what ends the looks."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from arena_cje.estimation import spending
from arena_cje.estimation.records import Estimate
from arena_cje.files import write_json
from arena_cje.results import decision_file, looks

COVERAGES = ("0.1", "0.2", "0.5", "1.0")
PLAN = looks.Plan(coverages=COVERAGES)
N = 400


def difference(value: float, se: float) -> Estimate:
    """A difference with this standard error, all of it from labels."""
    deviation = np.where(np.arange(1000) % 2, 1.0, -1.0)
    jackknife = deviation * se / math.sqrt(999)
    return Estimate(value, np.zeros(N), np.arange(N), value + jackknife, np.ones(N, dtype=bool))


def look(coverage: str, value: float | None, *, se: float = 0.1, usd: float = 0.0, **others: float) -> looks.Look:
    """A look whose information grows with the coverage; its policies are `one` and the others."""
    labels = round(float(coverage) * N)
    size = se / math.sqrt(float(coverage))
    values = {"one": value, **others}
    differences = {name: None if one is None else difference(one, size) for name, one in values.items()}
    return looks.Look(coverage, labels, labels * (1 + len(values)), usd * labels, differences)


def statuses(plan: looks.Plan, history: list[looks.Look], policy: str = "one") -> list[str]:
    return [reading.status for reading in looks.readings(plan, history, 0.05)[policy]]


def test_boundaries_are_those_of_the_information_so_far():
    history = [look(coverage, 0.0) for coverage in COVERAGES]
    readings = looks.readings(PLAN, history, 0.05)["one"]
    assert [one.fraction for one in readings] == pytest.approx([0.1, 0.2, 0.5, 1.0])
    assert readings[-1].spent == pytest.approx(0.05)
    z = spending.boundaries([0.1, 0.2, 0.5, 1.0], [0.1, 0.2, 0.5, 1.0], 0.05, "obrien_fleming")
    assert [one.boundary for one in readings] == pytest.approx(z.tolist())


def test_a_later_look_does_not_revoke_a_decision():
    """The intervals of all looks hold simultaneously, so that a later look with a wider interval revokes no decision."""
    history = [look("0.1", 0.9, se=0.01), look("0.2", 0.0)]
    first, second = looks.readings(PLAN, history, 0.05)["one"]
    assert (first.status, first.decided_at) == ("better_by_margin", "0.1")
    assert (second.status, second.decided_at) == ("better_by_margin", "0.1")
    assert second.interval[0] < 0 < second.interval[1]


def test_a_difference_significant_in_a_single_look_is_undecided_at_the_first_of_four_looks():
    """Two and a half standard errors at a tenth of the labels: significant once, not at the first of four looks."""
    value = 2.5 * 0.1 / math.sqrt(0.1)
    assert statuses(PLAN, [look("0.1", value)]) == ["not_yet_known"]
    assert statuses(looks.Plan(coverages=("0.1",)), [look("0.1", value)]) == ["better_by_margin"]


def test_several_policies_share_the_error_rate():
    alone = looks.readings(PLAN, [look("1.0", 0.0)], 0.05)["one"][0]
    among = looks.readings(PLAN, [look("1.0", 0.0, two=0.0, three=None)], 0.05)["one"][0]
    assert (alone.level, among.level) == pytest.approx((0.05, 0.05 / 3))


def test_a_refused_or_barely_labelled_look_spends_nothing():
    plan = replace(PLAN, min_labels=50)
    few, refused, whole = looks.readings(plan, [look("0.1", 0.9), look("0.2", None), look("1.0", 0.0)], 0.05)["one"]
    assert (few.status, few.note, few.spent) == ("not_yet_known", "too few labels", None)
    assert (refused.status, refused.spent) == ("refused", None)
    assert whole.level == pytest.approx(0.05)  # as if it were the only look


def test_a_difference_that_depends_on_judge_scores_alone_is_never_decided():
    history = [replace(look(coverage, 0.9, se=0.01), undecidable=frozenset(["one"])) for coverage in COVERAGES]
    assert statuses(PLAN, history) == ["not_yet_known"] * 4
    assert looks.document(PLAN, history, alpha=0.05)["stop"] == {"coverage": "1.0", "reason": "last_look"}


def test_a_policy_whose_difference_is_exactly_zero_is_equivalent():
    assert statuses(PLAN, [look("0.1", 0.0, se=0.0)]) == ["equivalent"]


def test_bootstrap_draws_have_no_interval_beyond_their_extremes():
    draws = 0.9 + 0.01 * np.random.default_rng(1).normal(size=1000)
    first = look("0.2", 0.9, se=0.01)
    first = replace(first, differences={"one": replace(first.differences["one"], replicates=draws)})
    early, last = looks.readings(PLAN, [first, replace(first, coverage="1.0", base_labels=N)], 0.05)["one"]
    assert early.level < 2 / 1001
    assert (early.status, early.interval) == ("not_yet_known", None)
    assert last.status == "better_by_margin"


def test_looks_end_when_all_are_decided():
    undecided = looks.document(PLAN, [look("0.1", 0.9, se=0.01, two=0.0)], alpha=0.05)
    assert undecided["stop"] is None
    decided = looks.document(PLAN, [look("0.1", 0.9, se=0.01, two=-0.9), look("0.2", 0.0, two=0.0)], alpha=0.05)
    assert decided["stop"] == {"coverage": "0.1", "reason": "decided"}
    assert len(decided["looks"]) == 1  # without the looks after the end


def test_looks_end_before_labels_that_cost_too_much():
    history = [look("0.1", 0.0, usd=0.5), look("0.2", 0.0, usd=0.5)]  # 80 and 160 labels for 20 and 40 dollars
    for limit in ({"max_labels": 200}, {"max_usd": 50.0}):
        account = looks.document(replace(PLAN, **limit), history, alpha=0.05)
        assert account["stop"] == {"coverage": "0.2", "reason": next(iter(limit))}
        last = account["looks"][-1]["targets"]["one"]
        assert (last["fraction"], last["spent"]) == pytest.approx((1.0, 0.05))  # the last look that the limit pays for


def test_looks_by_width_have_plain_intervals():
    plan = looks.Plan(coverages=COVERAGES, until="width", width=0.6)
    history = [look("0.1", 0.0), look("0.5", 0.0)]
    account = looks.document(plan, history, alpha=0.05)
    widths = [high - low for low, high in (one["targets"]["one"]["interval"] for one in account["looks"])]
    assert widths == pytest.approx([2 * 1.96 * 0.1 / math.sqrt(share) for share in (0.1, 0.5)], rel=0.01)
    assert account["stop"] == {"coverage": "0.5", "reason": "narrow"}


def test_the_texts_name_what_is_decided_and_why_the_looks_end():
    history = [look("0.1", 0.9, se=0.01, usd=0.5, two=0.0), look("0.2", 0.9, se=0.01, usd=0.5, two=0.9)]
    account = looks.document(PLAN, history, alpha=0.05, estimator="direct", against="base")
    assert account["sentence"] == (
        "Planned look 2 of 4 (coverage 0.2, 240 labels, 40.00 US dollars): no further look, because every policy has a "
        "decision. Compared with base: one better by at least 0.02 (at coverage 0.1); two better by at least 0.02."
    )
    table = looks.table(account)
    assert "Planned looks of direct, until every policy has a decision (margin 0.02)" in table
    assert "not yet known" in table


def test_decide_answers_from_a_file_of_planned_looks(tmp_path):
    history = [look("0.2", 0.9, se=0.01, two=0.0, three=-0.9), look("0.5", 0.0, two=0.0, three=0.0)]
    path = tmp_path / "direct.json"
    account = looks.document(PLAN, history, alpha=0.05, estimator="direct", against="base")
    write_json(path, account)
    assert looks.is_account(json.loads(path.read_text()))
    answers = {policy: decision_file.answer(path, policy) for policy in ("one", "two", "three")}
    assert [code for _, code in answers.values()] == [0, 2, 1]
    assert answers["one"][0] == (
        "Shipping one is supported (direct). one compared with base, after the planned looks up to coverage 0.5: better by at "
        "least 0.02 (at coverage 0.2)."
    )
