"""Plans from files and data: the document, its text, the command `arena-cje plan`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import arena_cje
from arena_cje.__main__ import main
from arena_cje.errors import UserError
from arena_cje.planning import plan, sources, text
from arena_cje.planning.plan import Prices, prices_of
from arena_cje.planning.study import Goal
from arena_cje.results.result import write
from arena_cje.simulate import Target, World
from small_results import write_data

if TYPE_CHECKING:
    from pathlib import Path

WORLD = World(
    {"clone": Target(), "better": Target(0.3)},
    prompt_share=0.7,
    strictness=0.7,
    coverage=60,
    target_labels=60,
    paired=True,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """logged.jsonl and draws/ of a world whose policies have labels on the same 60 of 300 prompts."""
    return write_data(tmp_path_factory.mktemp("pilot"), 300, WORLD)


@pytest.fixture(scope="module")
def known(folder) -> sources.Known:
    return sources.read(folder / "logged.jsonl", folder / "draws")


def run(capsys, *arguments: object, status: int = 0) -> str:
    assert main(["plan", *map(str, arguments)]) == status
    return capsys.readouterr().out


def test_a_plan_has_all_policies_the_cheapest_study_the_best_for_the_budget_and_audits(known):
    content = plan.document(known.pilot, Goal(difference=0.05), Prices(0.01, 0.1), budget=40.0, audits=known.audits)
    assert json.loads(json.dumps(content)) == content
    assert content["pilot"]["labels"] == {"base": 60, "clone": 60, "better": 60}
    assert [row["policy"] for row in content["now"]] == ["clone", "better"]
    cheapest, best = content["cheapest"], content["best_for_budget"]
    assert cheapest["detectable"] <= 0.05
    assert cheapest["cost"] == pytest.approx(0.01 * cheapest["n"] + 0.1 * cheapest["total_labels"])
    assert cheapest["total_labels"] == 3 * cheapest["m"]
    assert all(row["m"] is None or row["cost"] >= cheapest["cost"] * (1 - 1e-9) for row in content["choices"])
    assert best["cost"] <= 40.0
    assert set(content["audits"]) == {"clone", "better"}


def test_the_half_width_of_each_difference_has_a_range(known):
    for row in plan.document(known.pilot, Goal(), Prices())["now"]:
        low, high = row["half_width_range"]
        assert low < row["half_width"] < high


def test_without_prices_nothing_is_cheapest_and_a_budget_is_refused(known):
    content = plan.document(known.pilot, Goal(difference=0.05), Prices())
    assert content["cheapest"] is None and content["choices"]
    assert any("give --price-judge and --price-label" in line for line in text.lines(content))
    with pytest.raises(UserError, match="a budget needs the prices"):
        plan.document(known.pilot, Goal(), Prices(judge=0.1), budget=10.0)


def test_prices_are_computed_from_the_costs_of_a_run():
    rows = [
        {"stage": "generate", "usd": 1.0},
        {"stage": "judge", "usd": 0.5},
        {"stage": "judges/second", "usd": 0.5},
        {"stage": "oracle", "usd": 0.2},
        {"stage": "oracle", "usd": 0.4},
    ]
    assert prices_of(rows, 100) == Prices(0.02, pytest.approx(0.3))
    assert prices_of([*rows, {"stage": "judge", "usd": None}], 100) == Prices(None, pytest.approx(0.3))
    assert prices_of([], 100) == Prices()
    assert Prices(1.0).over(Prices(2.0, 3.0)) == Prices(1.0, 3.0)


def test_the_command_plans_from_data_and_again_from_its_plan_file(folder, tmp_path, capsys):
    logged, draws, file = folder / "logged.jsonl", folder / "draws", tmp_path / "results" / "planning" / "plan.json"
    file.parent.mkdir(parents=True)
    prices = ("--price-judge", 0.01, "--price-label", 0.1)
    printed = run(capsys, logged, "--fresh-draws", draws, "--difference", 0.05, *prices, "--json", file)
    assert "Cheapest: " in printed and "Pilot: 300 prompts, estimator direct; labelled prompts: base 60" in printed
    cheapest = next(line for line in printed.splitlines() if line.startswith("Cheapest"))
    for place in (file, tmp_path / "results", tmp_path):  # the prices are those of the plan
        assert cheapest in run(capsys, place, "--difference", 0.05)
    assert "Most precise study for $30.00" in run(capsys, file, "--budget", 30)


def test_a_results_file_plans_alone_and_by_the_data_beside_it(folder, tmp_path, capsys):
    result = arena_cje.analyze(folder / "logged.jsonl", folder / "draws", "direct")
    place = tmp_path / "results" / "coverage_0.2"
    place.mkdir(parents=True)
    write(result, *(place / f"direct.{kind}" for kind in ("json", "csv", "influence.parquet")))
    alone = sources.read(place / "direct.json")
    assert alone.pilot.labels == {"base": 60, "clone": 60, "better": 60}
    difference = result.estimate("better") - result.estimate("base")
    variance = alone.pilot.differences["better"].variance
    assert variance.at(300, 60) == pytest.approx(difference.spread**2)
    (place / "cje_dataset.jsonl").write_bytes((folder / "logged.jsonl").read_bytes())
    (place / "fresh_draws").symlink_to(folder / "draws")
    from_data = sources.read(tmp_path / "results")
    assert from_data.pilot.differences["better"].labels_df > 30  # its own jackknife has more folds
    assert "Studies whose intervals are at most ± 0.03" in run(capsys, place / "direct.json", "--half-width", 0.03)


def test_a_result_without_influence_values_is_refused_with_the_command_that_plans(folder, tmp_path, capsys):
    result = arena_cje.analyze(folder / "logged.jsonl", folder / "draws", "direct")
    (tmp_path / "direct.json").write_text(result.to_json())
    assert main(["plan", str(tmp_path / "direct.json")]) == 1
    errors = capsys.readouterr().err
    assert "direct.influence.parquet" in errors and errors.count("\n") == 1
    assert "`arena-cje plan logged.jsonl --fresh-draws draws`" in errors


def test_a_results_file_with_labels_on_all_responses_gives_no_plan_but_its_data_do(tmp_path):
    folder = write_data(tmp_path, 200, replace(WORLD, coverage=1.0, target_labels=1.0))
    result = arena_cje.analyze(folder / "logged.jsonl", folder / "draws", "direct")
    write(result, *(tmp_path / f"direct.{kind}" for kind in ("json", "csv", "influence.parquet")))
    known = sources.read(tmp_path / "direct.json")
    assert known.pilot.differences == {}
    assert all("every response has a label" in reason for reason in known.pilot.omitted.values())
    assert sources.read(tmp_path / "logged.jsonl", tmp_path / "draws").pilot.labels["base"] == 100


def test_targets_without_labels_have_the_labels_of_their_audit_and_no_plan(tmp_path, capsys):
    folder = write_data(tmp_path, 200, replace(WORLD, target_labels=0))
    printed = run(capsys, folder / "logged.jsonl", "--fresh-draws", folder / "draws", "--difference", 0.05, status=1)
    assert "No plan for clone, better: none of its own responses has a label" in printed
    assert "Transport audit of clone, better: not checked with 0 labels" in printed


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("plan.json", '{"pilot": {}}', "not a plan of this version"),
        ("other.json", "{}", "not a results file"),
        ("half.json", '{"pilot": 1, "audits": {}}', "not a plan of this version"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_sentence(tmp_path, capsys, name, content, sentence):
    (tmp_path / name).write_text(content)
    assert main(["plan", str(tmp_path / name)]) == 1
    errors = capsys.readouterr().err
    assert sentence in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--difference", "-1"], "difference must lie in (0, 1), got -1"),
        (["--difference", "2"], "difference must lie in (0, 1), got 2; 0.02 is a difference of two points of 100"),
        (["--half-width", "1"], "half_width must lie in (0, 1), got 1"),
        (["--power", "0.2"], "power must lie in"),
        (["--budget", "1"], "a budget needs the prices"),
        (["--price-judge", "0", "--price-label", "1"], "the cost `judge` must be a number above 0"),
        (
            ["--budget", "0.1", "--price-judge", "0.01", "--price-label", "1"],
            "a budget of 0.1 does not pay for 30 prompts",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(folder, capsys, arguments, sentence):
    assert main(["plan", str(folder / "logged.jsonl"), "--fresh-draws", str(folder / "draws"), *arguments]) == 1
    errors = capsys.readouterr().err
    assert sentence in errors and errors.count("\n") == 1


def test_the_audit_of_a_plan_has_the_facts_of_the_analysis(known):
    audit = known.audits["better"]
    assert audit["base_labels"] == 60 and audit["labels"] == 60 and audit["margin"] == 0.05
    assert np.isfinite(audit["residual_sd"])


def test_an_audit_that_too_few_base_labels_prevent_says_how_many_would_do(known):
    audit = known.audits["better"]
    both = audit["labels_of_both_to_pass"]
    assert audit["labels_to_pass"] is None and both > 60
    printed = "\n".join(text.lines(plan.document(known.pilot, Goal(), Prices(), audits=known.audits)))
    assert (
        f"further base labels are needed as well: for example {both} labels of the base and {both} of the target"
        in printed
    )
