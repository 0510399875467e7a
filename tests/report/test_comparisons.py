"""Differences are those of the paired estimates, corrected over all pairs; a rank claims no more than they carry."""

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
    """`far` is refused; `same` is the base policy again."""
    return analyzed(data, request.param)


def test_every_pair_is_there_once_the_base_first(result):
    found = [(row["first"], row["second"]) for row in comparisons.pairs(result)]
    assert found[: len(TARGETS)] == [(policy, "base") for policy in TARGETS]
    policies = ("base", *TARGETS)
    wanted = {frozenset((one, other)) for one in policies for other in policies if one != other}
    assert len(found) == len(wanted) == len({frozenset(pair) for pair in found})


def test_a_pair_with_a_refused_policy_has_no_number_and_says_which(result):
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


def test_holm_is_over_the_pairs_of_published_policies(result):
    """By hand: the k-th smallest of m p-values times m - k + 1, never falling, at most 1."""
    tested = sorted(
        (row for row in comparisons.pairs(result) if row["p_value"] is not None), key=lambda r: r["p_value"]
    )
    assert len(tested) == 6  # four published policies
    largest = 0.0
    for k, row in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - k) * row["p_value"]))
        assert row["p_holm"] == pytest.approx(largest)
        assert row["p_value"] <= row["p_bh"] <= row["p_holm"] + 1e-12


def test_the_ranking_is_by_value_and_leaves_the_refused_out(result):
    places = comparisons.ranking(result, comparisons.pairs(result))
    assert {place.policy for place in places} == {"base", *TARGETS} - {"far"}
    values = [result.summary(place.policy)["estimate"] for place in places]
    assert values == sorted(values, reverse=True)
    assert places[0].policy == result.best == "better"


def test_ranks_leave_open_what_differences_leave_open(result):
    """From both ends: a rank range holds every policy that is not separated, and no policy that is."""
    found = comparisons.pairs(result)
    p_holm = {frozenset((row["first"], row["second"])): row["p_holm"] for row in found}
    places = comparisons.ranking(result, found)
    for k, place in enumerate(places):
        above = sum(p_holm[frozenset((place.policy, other.policy))] <= 0.05 for other in places[:k])
        below = sum(p_holm[frozenset((place.policy, other.policy))] <= 0.05 for other in places[k + 1 :])
        assert (place.best_rank, place.worst_rank) == (1 + above, len(places) - below)
        assert place.best_rank <= place.rank <= place.worst_rank
    assert places[-1].apart_from_next is None


def test_a_policy_equal_to_the_base_shares_its_rank(data):
    places = {place.policy: place for place in _ranking(analyzed(data, "snips"))}
    assert places["same"].rank == places["base"].rank == 3
    assert places["same"].best_rank == 3 and places["base"].worst_rank == 4


def test_a_lead_that_is_certain_is_said_to_be(data):
    found = _top(analyzed(data))
    assert (found.policy, found.second, found.apart_from_second, found.not_apart_from) == ("better", "near", True, ())
    assert "apart from every other published policy" in found.says
    assert "Refused, and so not ranked: far." in found.says


def test_a_lead_that_is_not_certain_names_who_may_be_as_good(tmp_path):
    world = World(targets={"a": Target(0, 0.4), "b": Target(0, 0.5), "worse": Target(-0.9, 0.1)}, coverage=1.0)
    found = _top(analyzed(write_data(tmp_path, world=world), coverage=0.2))
    others = {"a", "b", "base"} - {found.policy}
    assert set(found.not_apart_from) == others
    assert found.apart_from_second is False
    assert all(name in found.says for name in others) and "worse" not in found.says
    assert "(Holm, 0.05)" in found.says


def test_apart_from_the_second_is_not_apart_from_all(data):
    """The next in value may have the surer estimate: every other policy is looked at."""
    result = analyzed(data)
    found = comparisons.pairs(result)
    unsure = next(row for row in found if (row["first"], row["second"]) == ("better", "base"))
    unsure["p_holm"] = 0.2
    top = comparisons.top(result, found)
    assert top.second == "near" and top.apart_from_second is True
    assert top.not_apart_from == ("base",) and "not told apart from base" in top.says


def test_refused_policies_that_computed_higher_are_named_without_a_number(data):
    result = analyzed(data, "ips", thresholds={"mean_weight_refuse": 0.05})
    assert "better" in result.refused
    found = _top(result)
    assert found.refused_but_higher == ("better",)
    assert found.says.endswith("Computed higher, but not published: better.")
    assert not any(digits in found.says for digits in _digits(result.refused["better"]["estimate"]))


def test_where_all_are_refused_nobody_leads(data):
    result = analyzed(data, rewards="judge")
    assert len(result.refused) == 5
    assert _ranking(result) == []
    found = _top(result)
    assert (found.policy, found.second, found.apart_from_second, found.not_apart_from) == (None, None, None, ())
    assert found.says.startswith("No policy is published. Refused, and so not ranked: base, same,")
    assert {row["p_holm"] for row in comparisons.pairs(result)} == {None}


def test_one_published_policy_is_ranked_against_nothing(tmp_path):
    result = analyzed(write_data(tmp_path, world=World(targets={"far": WORLD.targets["far"]}, coverage=1.0)))
    found = _top(result)
    assert (found.policy, found.second, found.apart_from_second) == ("base", None, None)
    assert "nothing to rank it against" in found.says and "far" in found.refused


def test_the_document_and_the_table_say_the_same(data):
    results = [analyzed(data, name) for name in ("calibrated-ips", "direct")]
    document, table = comparisons.document(results, "0.5"), comparisons.table(results)
    assert list(document["estimators"]) == ["calibrated-ips", "direct"]
    listed = [row for name in document["estimators"] for row in document["estimators"][name]["comparisons"]]
    for row, told in zip(table.iter_rows(named=True), listed, strict=True):
        assert [row["ci_lower"], row["ci_upper"]] == told["confidence_interval"]
        assert all(row[name] == told[name] for name in ("first", "second", "difference", "p_holm"))
        assert row["refused"].split(";") == (told["refused"] or [""])
    json.loads(files.json_text(document))


def test_no_refused_number_is_in_what_is_written(data, tmp_path):
    result = analyzed(data)
    files.write_csv(tmp_path / "c.csv", comparisons.table([result]))
    written = (tmp_path / "c.csv").read_text() + files.json_text(comparisons.document([result], "0.5"))
    number = result.refused["far"]
    for value in (number["estimate"], number["se"], *number["confidence_interval"]):
        assert not any(digits in written for digits in _digits(value))


def test_the_workflow_compares(tmp_path):
    write_data(tmp_path, n=200)
    own = {"logged_data": "logged.jsonl", "fresh_draws": "draws", "estimators": ["direct", "snips"]}
    run = Run(tmp_path, own)
    said = run.snakemake("results/coverage_0.5/comparisons.json", "results/coverage_0.5/comparisons.csv")
    assert "direct: better has the highest value" in said
    document = files.read_json(run.path("coverage_0.5/comparisons.json"))
    assert document["coverage"] == "0.5" and list(document["estimators"]) == ["direct", "snips"]
    table = pl.read_csv(run.path("coverage_0.5/comparisons.csv"))
    assert len(table) == 2 * 10
    assert table.filter(pl.col("refused").is_null())["difference"].is_not_null().all()


def _ranking(result):
    return comparisons.ranking(result, comparisons.pairs(result))


def _top(result):
    return comparisons.top(result, comparisons.pairs(result))


def _digits(value: float) -> list[str]:
    """How a number would look, written in full or short."""
    assert not np.isnan(value)
    return [repr(value)[:8], f"{value:.4f}"]
