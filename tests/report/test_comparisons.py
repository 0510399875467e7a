"""Differences come from paired estimates, corrected by families; ranks separate only what the decision separates."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats

from arena_cje import files
from arena_cje.report import comparisons
from arena_cje.simulate import Target, World
from small_results import TARGETS, WORLD, analyzed, write_data
from workflow_run import Run

NUMBERS = ("difference", "se", "ci_lower", "ci_upper", "df", "p_value", "p_holm", "p_bh")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=("calibrated-ips", "direct"))
def result(request, data):
    """`far` is refused; `same` is the base policy again; transport is assumed, so that differences decide."""
    return analyzed(data, request.param, assume_transport=True)


def test_every_pair_is_compared_once_and_pairs_with_the_base_come_first(result):
    pairs = [(row["first"], row["second"]) for row in comparisons.pairs(result)]
    assert pairs[: len(TARGETS)] == [(policy, "base") for policy in TARGETS]
    policies = ("base", *TARGETS)
    expected = {frozenset((one, other)) for one in policies for other in policies if one != other}
    assert len(pairs) == len(expected) == len({frozenset(pair) for pair in pairs})


def test_a_pair_with_a_refused_policy_has_no_number_and_names_the_policy(result):
    assert set(result.refused) == {"far"}
    for row in comparisons.pairs(result):
        refused = "far" in (row["first"], row["second"])
        assert row["refused"] == (["far"] if refused else [])
        assert all((row[name] is None) == refused for name in NUMBERS)


def test_a_difference_is_that_of_the_published_values(result):
    value = dict(zip(result.policies, result.estimates, strict=True)) | {"base": result.summary("base")["estimate"]}
    for row in comparisons.pairs(result):
        if row["difference"] is not None:
            assert row["difference"] == pytest.approx(value[row["first"]] - value[row["second"]], abs=1e-12)
            reach = stats.t.ppf(0.975, row["df"]) * row["se"]
            assert row["ci_upper"] - row["difference"] == pytest.approx(reach)


def test_holm_p_values_are_corrected_over_the_pairs_of_published_policies(result):
    """By hand: the k-th smallest of m p-values times m - k + 1, never falling, at most 1."""
    rows = sorted((row for row in comparisons.pairs(result) if row["p_value"] is not None), key=lambda r: r["p_value"])
    assert len(rows) == 6  # four published policies
    largest = 0.0
    for k, row in enumerate(rows):
        largest = max(largest, min(1.0, (len(rows) - k) * row["p_value"]))
        assert row["p_holm"] == pytest.approx(largest)
        assert row["p_value"] <= row["p_bh"] <= row["p_holm"] + 1e-12


def test_the_ranking_is_by_value_and_leaves_out_refused_policies(result):
    places = comparisons.ranking(result, comparisons.pairs(result))
    assert {place.policy for place in places} == {"base", *TARGETS} - {"far"}
    values = [result.summary(place.policy)["estimate"] for place in places]
    assert values == sorted(values, reverse=True)
    assert places[0].policy == result.best == "better"


def test_the_rank_range_of_a_policy_excludes_only_policies_separated_from_it(result):
    """The range ends below the policies that are separated above, and above those that are separated below."""
    pairs = comparisons.pairs(result)
    apart = {frozenset((row["first"], row["second"])): row["apart"] for row in pairs}
    places = comparisons.ranking(result, pairs)
    for k, place in enumerate(places):
        above = sum(apart[frozenset((place.policy, other.policy))] for other in places[:k])
        below = sum(apart[frozenset((place.policy, other.policy))] for other in places[k + 1 :])
        assert (place.best_rank, place.worst_rank) == (1 + above, len(places) - below)
        assert place.best_rank <= place.rank <= place.worst_rank
    assert places[-1].apart_from_next is None


def test_a_policy_equal_to_the_base_shares_its_rank(data):
    places = {place.policy: place for place in _ranking(analyzed(data, "snips", assume_transport=True))}
    assert places["same"].rank == places["base"].rank == 3
    assert places["same"].best_rank == 3 and places["base"].worst_rank == 4


def test_a_significant_lead_over_all_policies_is_stated(data):
    top = _top(analyzed(data, assume_transport=True))
    assert (top.policy, top.second, top.apart_from_second, top.not_apart_from) == ("better", "near", True, ())
    assert "with a significant difference from every other published policy" in top.says
    assert "Refused, so not ranked: far." in top.says


def test_without_a_significant_lead_the_policies_that_may_be_best_are_named(tmp_path):
    world = World(targets={"a": Target(0, 0.4), "b": Target(0, 0.5), "worse": Target(-0.9, 0.1)}, coverage=1.0)
    top = _top(analyzed(write_data(tmp_path, world=world), coverage=0.2, assume_transport=True))
    others = {"a", "b", "base"} - {top.policy}
    assert set(top.not_apart_from) == others
    assert top.apart_from_second is False
    assert all(name in top.says for name in others) and "worse" not in top.says
    assert top.says.startswith("No policy is known to be best")


def test_differences_from_judge_scores_alone_separate_no_policies(data):
    """Without own labels, and without the option that assumes transport, all differences depend on judge scores alone."""
    result = analyzed(data, "direct")
    pairs = comparisons.pairs(result)
    assert all(row["judge_only"] and not row["apart"] for row in pairs if not row["refused"])
    assert {place.best_rank for place in comparisons.ranking(result, pairs)} == {1}
    assert {place.worst_rank for place in comparisons.ranking(result, pairs)} == {4}
    assert set(_top(result).not_apart_from) == {"near", "base", "same"}


def test_a_pair_with_the_base_is_separated_where_the_interval_of_the_decision_excludes_zero(result):
    """One family of intervals: the comparisons with the base have exactly the intervals of the decision."""
    decided = result.decision["policies"]
    for row in comparisons.pairs(result):
        if row["second"] == "base" and not row["refused"]:
            entry = decided[row["first"]]
            assert [row["corrected_lower"], row["corrected_upper"]] == pytest.approx(
                entry["corrected_interval"], abs=1e-12
            )
            assert row["apart"] == (entry["corrected_interval"][0] > 0 or entry["corrected_interval"][1] < 0)


def test_intervals_are_corrected_for_their_family(result):
    """By hand: three differences to the base, three of the others, each interval at its level by Student's t."""
    for row in comparisons.pairs(result):
        if row["difference"]:
            reach = stats.t.ppf(1 - 0.05 / 3 / 2, row["df"]) * row["se"]
            assert row["corrected_upper"] - row["difference"] == pytest.approx(reach)
            assert row["p_corrected"] == pytest.approx(min(1, 3 * row["p_value"]))


def test_a_lead_over_the_second_policy_is_not_a_lead_over_all(data):
    """A policy further down may have the larger standard error: the first is compared with every other one."""
    result = analyzed(data, assume_transport=True)
    pairs = comparisons.pairs(result)
    unsure = next(row for row in pairs if (row["first"], row["second"]) == ("better", "base"))
    unsure["apart"] = False
    top = comparisons.top(result, pairs)
    assert top.second == "near" and top.apart_from_second is True
    assert top.not_apart_from == ("base",) and "without a significant difference from base" in top.says


def test_refused_policies_with_a_higher_unpublished_estimate_are_named_without_a_number(data):
    result = analyzed(data, "ips", thresholds={"mean_weight_refuse": 0.05})
    assert "better" in result.refused
    top = _top(result)
    assert top.refused_but_higher == ("better",)
    assert top.says.endswith("Unpublished estimates above it: better.")
    assert not any(digits in top.says for digits in _digits(result.refused["better"]["estimate"]))


def test_without_published_policies_there_is_no_ranking_and_no_best_policy(data):
    result = analyzed(data, rewards="judge")
    assert len(result.refused) == 5
    assert _ranking(result) == []
    top = _top(result)
    assert (top.policy, top.second, top.apart_from_second, top.not_apart_from) == (None, None, None, ())
    assert top.says == "No policy is published. Refused, so not ranked: base, same, better, near, far."
    assert {row["p_holm"] for row in comparisons.pairs(result)} == {None}


def test_a_single_published_policy_is_first_without_a_comparison(tmp_path):
    result = analyzed(write_data(tmp_path, world=World(targets={"far": WORLD.targets["far"]}, coverage=1.0)))
    top = _top(result)
    assert (top.policy, top.second, top.apart_from_second) == ("base", None, None)
    assert "nothing to rank it against" in top.says and "far" in top.refused


def test_the_document_and_the_table_have_the_same_numbers(data):
    results = [analyzed(data, name) for name in ("calibrated-ips", "direct")]
    document, table = comparisons.document(results, "0.5"), comparisons.table(results)
    assert list(document["estimators"]) == ["calibrated-ips", "direct"]
    entries = [row for name in document["estimators"] for row in document["estimators"][name]["comparisons"]]
    for row, entry in zip(table.iter_rows(named=True), entries, strict=True):
        assert [row["ci_lower"], row["ci_upper"]] == entry["confidence_interval"]
        assert all(row[name] == entry[name] for name in ("first", "second", "difference", "p_holm"))
        assert row["refused"].split(";") == (entry["refused"] or [""])
    json.loads(files.json_text(document))


def test_written_comparisons_contain_no_number_of_a_refused_policy(data, tmp_path):
    result = analyzed(data)
    files.write_csv(tmp_path / "c.csv", comparisons.table([result]))
    text = (tmp_path / "c.csv").read_text() + files.json_text(comparisons.document([result], "0.5"))
    number = result.refused["far"]
    for value in (number["estimate"], number["se"], *number["confidence_interval"]):
        assert not any(digits in text for digits in _digits(value))


def test_the_workflow_writes_comparisons_and_a_decision_that_agree(tmp_path):
    write_data(tmp_path, n=200)
    own = {"logged_data": "logged.jsonl", "fresh_draws": "draws", "estimators": ["direct", "snips"]}
    own["decision"] = {"margin": 0.03}
    run = Run(tmp_path, own)
    output = run.snakemake(
        *(f"results/coverage_0.5/{name}" for name in ("decision.json", "comparisons.json", "comparisons.csv"))
    )
    assert (
        "direct: Compared with base, same, better and near are not yet known to be better or worse; far is refused."
        in output
    )
    document = files.read_json(run.path("coverage_0.5/comparisons.json"))
    assert document["coverage"] == "0.5" and list(document["estimators"]) == ["direct", "snips"]
    decision = files.read_json(run.path("coverage_0.5/decision.json"))
    assert decision["recommended"] == document["recommended"]
    assert decision["decision"] == document["estimators"]["direct"]["decision"]
    assert decision["decision"]["margin"] == 0.03
    table = pl.read_csv(run.path("coverage_0.5/comparisons.csv"))
    assert len(table) == 2 * 10
    assert table.filter(pl.col("refused").is_null())["difference"].is_not_null().all()


def _ranking(result):
    return comparisons.ranking(result, comparisons.pairs(result))


def _top(result):
    return comparisons.top(result, comparisons.pairs(result))


def _digits(value: float) -> list[str]:
    """The digits of a number, in full and rounded."""
    assert not np.isnan(value)
    return [repr(value)[:8], f"{value:.4f}"]
