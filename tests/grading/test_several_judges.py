"""Further judges: their scores may replace those of the main judge or be covariates; a judge that is named must exist."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import arena_cje
from arena_cje import files
from arena_cje.config.parse import parse
from arena_cje.data import schemas
from arena_cje.data.dataset import load_calibration, load_draws, load_logged
from arena_cje.data.reading import Reading
from arena_cje.errors import UserError
from arena_cje.report import exports, sources
from arena_cje.results import notebook
from arena_cje.results.schema import check
from arena_cje.stages import assemble
from small_results import analyzed, write_data

SHIPPED = yaml.safe_load(Path("config/config.yaml").read_text())
HOSTED = {"provider": "openai", "model": "m", "rubric": "helpfulness.yaml"}


def copy_with_changed_rows(folder, change_row, into):
    """Copy a data set and its draws into another folder, with each row changed by a function."""
    for path in (folder / "logged.jsonl", *(folder / "draws").iterdir()):
        rows = [change_row(k, row) for k, row in enumerate(schemas.read_jsonl(path))]
        (into / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        files.write_jsonl(into / path.relative_to(folder), rows)
    return into


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def data_of_judge_b(data, tmp_path_factory):
    """The scores of `data` are those of judge `b`; `judge_score` and its distribution have other values."""

    def change_row(k, row):
        wrong = {"judge_score": 0.5, "judge_distribution": [[0.25, 0.5], [0.75, 0.5]]}
        return row | wrong | {"metadata": {"judge_b": row["judge_score"], "judge_c": 1 - row["judge_score"]}}

    return copy_with_changed_rows(data, change_row, tmp_path_factory.mktemp("moved"))


@pytest.mark.parametrize("estimator", ["snips", "direct", "dr-cpo"])
def test_an_analysis_with_a_named_judge_uses_the_scores_of_that_judge(data, data_of_judge_b, estimator):
    expected, result = analyzed(data, estimator), analyzed(data_of_judge_b, estimator, judge="b")
    check(result.document, estimator)
    np.testing.assert_array_equal(result.influence, expected.influence)
    np.testing.assert_array_equal(result.estimates, expected.estimates)
    assert (result.judge, expected.judge) == ("b", None)
    other = analyzed(data_of_judge_b, estimator, judge="c")
    assert not np.allclose(other.influence, expected.influence)


def test_rows_without_a_score_of_the_named_judge_are_left_out_and_counted(data_of_judge_b, tmp_path):
    def change_row(k, row):
        return row | {"metadata": row["metadata"] | ({"judge_b": None} if k in (3, 5) else {})}

    folder = copy_with_changed_rows(data_of_judge_b, change_row, tmp_path)
    result = analyzed(folder, "direct", judge="b")
    counted = result.document["metadata"]["data"]
    assert (counted["n_responses"], counted["n_rows"], counted["dropped"]) == (400, 398, {"no judge score": 2})
    assert {counts["n_rows"] for counts in counted["fresh_draws"].values()} == {398}
    assert analyzed(folder, "direct").document["metadata"]["data"]["n_rows"] == 400


def test_a_row_without_a_score_of_the_main_judge_is_used_with_another_judge(data_of_judge_b, tmp_path):
    folder = copy_with_changed_rows(
        data_of_judge_b, lambda k, row: row | {"judge_score": None, "judge_distribution": None}, tmp_path
    )
    assert analyzed(folder, "snips", judge="b").document["metadata"]["data"]["n_rows"] == 400
    with pytest.raises(UserError, match="none of 400 rows has a judge_score"):
        analyzed(folder, "snips")


def test_a_judge_without_scores_in_the_rows_is_refused_with_the_nearest_name(data_of_judge_b):
    with pytest.raises(UserError, match=r"none of 400 rows has a judge_bb \(did you mean 'judge_b'\?\)"):
        analyzed(data_of_judge_b, "snips", judge="bb")


def test_a_score_of_the_named_judge_above_one_is_refused(data_of_judge_b, tmp_path):
    folder = copy_with_changed_rows(data_of_judge_b, lambda k, row: row | {"metadata": {"judge_b": 1.5}}, tmp_path)
    with pytest.raises(UserError, match=r"logged.jsonl:1: metadata.judge_b is 1.5, expected at most 1"):
        analyzed(folder, "snips", judge="b")


def test_calibration_data_have_the_scores_of_the_named_judge(data_of_judge_b, tmp_path):
    calibration_rows = [
        {"prompt_id": f"x{k}", "policy": "z", "judge_score": 0.5, "oracle_label": 0.5, "metadata": {"judge_b": k / 10}}
        for k in range(3)
    ]
    files.write_jsonl(tmp_path / "beside.jsonl", calibration_rows)
    calibration, _ = load_calibration(
        tmp_path / "beside.jsonl", logged=data_of_judge_b / "logged.jsonl", reading=Reading(judge="b")
    )
    assert calibration.judged.score.tolist() == [0.0, 0.1, 0.2]


def test_scores_of_a_judge_may_be_a_covariate_and_rows_without_them_are_left_out(data_of_judge_b, tmp_path):
    def change_row(k, row):
        metadata = row["metadata"] | ({"judge_c": None} if k == 3 else {})
        return row | {"judge_score": metadata["judge_b"], "judge_distribution": None, "metadata": metadata}

    folder = copy_with_changed_rows(data_of_judge_b, change_row, tmp_path)
    logged, counts = load_logged(folder / "logged.jsonl", reading=Reading(["judge_c"]))
    assert counts["dropped"] == {"no judge score": 1}
    np.testing.assert_allclose(logged.covariates[:, 0], 1 - logged.judge_score)
    draws, _ = load_draws(folder / "draws" / "near.jsonl", "near", logged.prompt_id, reading=Reading(["judge_c"]))
    assert draws.covariates.shape == (399, 1, 1)
    rows = [row | {"metadata": {}} for row in schemas.read_jsonl(folder / "logged.jsonl")]
    files.write_jsonl(folder / "logged.jsonl", rows)
    with pytest.raises(UserError, match="covariate 'judge_c' is missing"):
        load_logged(folder / "logged.jsonl", reading=Reading(["judge_c"]))


def test_exports_reports_and_notebooks_of_a_result_use_its_judge(data, data_of_judge_b):
    expected, result = analyzed(data, "snips"), analyzed(data_of_judge_b, "snips", judge="b")
    file = data_of_judge_b / "logged.jsonl"
    assert exports.logged_rows(file, result)[1] == exports.logged_rows(data / "logged.jsonl", expected)[1]
    assert [row["judge_score"] for row in exports.logged_rows(file, result)[0]] == [
        row["metadata"]["judge_b"] for row in schemas.read_jsonl(file)
    ]
    score = load_logged(data / "logged.jsonl", reading=expected.reading)[0].judge_score
    np.testing.assert_array_equal(load_logged(file, reading=result.reading)[0].judge_score, score)
    files.write_json(data_of_judge_b / "summary.json", {"base_policy": "base"})
    paths = {"dataset": [str(file)], "summary": [str(data_of_judge_b / "summary.json")]}
    logged = sources.Sources(paths, "1.0", {"scores_of": "b"}).logged
    np.testing.assert_array_equal(logged.judge_score, score)
    np.testing.assert_array_equal(notebook.read_logged(result, file).judge_score, score)


def grade_row(k, score):
    return {"prompt_id": f"q{k}", "draw_idx": 0, "score": score, "reason": None if score is not None else "cut"}


def test_scores_of_further_judges_are_in_the_metadata_of_each_row():
    responses = [
        {"prompt_id": f"q{k}", "draw_idx": 0, "prompt": "p", "response": "r", "token_ids": [1], "policy": "a"}
        | {"finish_reason": "stop", "status": "ok"}
        for k in range(4)
    ]
    grades = {
        "judge": [grade_row(0, 0.1), grade_row(1, None), grade_row(2, 0.2), grade_row(3, None)],
        "judges/b": [grade_row(0, 0.3), grade_row(1, 0.4), grade_row(2, None), grade_row(3, None)],
        "oracle": [grade_row(1, 1.0)],
    }
    tally = assemble.Tally()
    rows = list(assemble.logged_rows(responses, grades, {}, tally, base_policy="base", targets=["a"]))
    summary = assemble.logged_summary(tally, {}, base_policy="base", targets=["a"])
    scored_rows = [
        (row["prompt_id"], row["judge_score"], row["metadata"]["judge_b"], row["oracle_label"]) for row in rows
    ]
    assert scored_rows == [("q0", 0.1, 0.3, None), ("q1", None, 0.4, 1.0), ("q2", 0.2, None, None)]
    assert summary["dropped"] == {"no judge score: cut": 1}
    assert summary["not_judged"] == {"judge_score": 1, "judge_b": 1}
    tally = assemble.Tally()
    draws = list(assemble.draw_rows(responses, grades, tally))
    summary = assemble.draw_summary(tally)
    assert [(row["judge_score"], row["metadata"]["judge_b"]) for row in draws] == [
        (0.1, 0.3),
        (None, 0.4),
        (0.2, None),
        (None, None),
    ]
    assert summary["unscored"] == {"no judge score: cut": 1}


# Configurations of providers and judges


@pytest.fixture
def raw():
    return copy.deepcopy(SHIPPED)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"policies.clone.provider": "opneai"},
            "`policies.clone.provider` is 'opneai', which is not under `providers` (did",
        ),
        ({"judge.provider": "reference"}, "`judge.provider` is 'reference'"),
        ({"judge.provider": "reference"}, "only the oracle may be `reference`"),
        ({"oracle.provider": "referense"}, "(did you mean 'reference'?)"),
        (
            {"judges": {"b": HOSTED | {"provider": "x"}}},
            "`judges.b.provider` is 'x', which is not under `providers`; defined",
        ),
        (
            {"providers.llama_cpp": {}},
            "`providers.llama_cpp` has a name that is reserved for a provider without an API",
        ),
        (
            {"policies.clone.base_url": "http://here/v1"},
            "`policies.clone.base_url` is set, but provider 'llama_cpp' is not an API",
        ),
        ({"oracle.provider": "llama_cpp"}, "`oracle.model` is missing; set a name under `models`"),
        (
            {"oracle.provider": "llama_cpp", "oracle.model": "smolm2"},
            "`oracle.model` is 'smolm2', which is not under `models`",
        ),
        ({"judges": {"b": {"model": "gpt"}}}, "`judges.b.model` is 'gpt', which is not under `models`"),
        ({"judges": {"b": {"provider": "openai"}}}, "`judges.b.model` is missing; set its name at provider 'openai'"),
        ({"oracle.provider": "openai", "oracle.model": "gpt"}, "`oracle.rubric` is 'likelihood.yaml', which needs log"),
        ({"judges": {"b": HOSTED | {"rubric": "likelihood.yaml"}}}, "provider 'openai' returns none"),
        ({"judge.ensemble": ["b", "c"]}, "`judge.ensemble` names 'b', which is not under `judges`; defined: none"),
        ({"judge.ensemble": ["b"], "judges": {"b": HOSTED}}, "expected two or more different names under `judges`"),
        ({"judge.ensemble": ["b", "b"], "judges": {"b": HOSTED}}, "expected two or more different names"),
        (
            {"judges": {"b": {"ensemble": ["c", "d"]}, "c": {"ensemble": ["b", "d"]}, "d": HOSTED}},
            "judges b -> c -> b are ensembles of each other in a cycle",
        ),
        ({"judges": {"b": {"ensemble": ["b", "d"]}, "d": HOSTED}}, "judges b -> b are ensembles"),
        ({"judges": {"distribution": HOSTED}}, "its scores would be stored as `judge_distribution`"),
        (
            {"analysis.judge": "nanno", "judges": {"nano": HOSTED}},
            "`analysis.judge` is 'nanno', which is not under `judges` (did",
        ),
        ({"variants": {"v": {"estimator": "direct", "judge": "b"}}}, "`variants.v.judge` is 'b', which is not under"),
        (
            {"analysis.calibration": "auto", "analysis.covariates": ["judge_b"]},
            "covariate 'judge_b' is not a number in the workflow's rows",
        ),
        (
            {
                "analysis.calibration": "auto",
                "analysis.covariates": ["response_token_count"],
                "policies.cool": {"provider": "openai", "model": "m"},
            },
            "covariate 'response_token_count' is not a number",
        ),
    ],
)
def test_an_error_in_providers_or_judges_is_refused_with_one_sentence(raw, changes, sentence):
    for path, value in changes.items():
        block, (*above, key) = raw, path.split(".")
        for name in above:
            block = block[name]
        block[key] = value
    with pytest.raises(UserError) as error:
        parse(raw)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_valid_configuration_of_several_judges_is_accepted(raw):
    raw["judges"] = {
        "b": HOSTED,
        "c": HOSTED | {"model": "n"},
        "both": {"ensemble": ["b", "c"]},
        "all": {"ensemble": ["both", "b"]},
        "echo": {
            "provider": "fireworks",
            "model": "llama",
        },  # returns log probabilities of given text, so the likelihood rubric is allowed
    }
    raw["judge"] = {"ensemble": ["b", "all"]}
    raw["oracle"] |= HOSTED
    raw["analysis"] |= {"judge": "both", "calibration": "auto", "covariates": ["judge_b", "response_token_count"]}
    config = parse(raw)
    assert list(config.graders) == [
        "judge",
        "judges/b",
        "judges/c",
        "judges/both",
        "judges/all",
        "judges/echo",
        "oracle",
    ]
    assert config.oracle.truth_coverage is None  # by default no labels are bought from an API for the truth


def test_a_judge_at_each_shipped_provider_is_hosted(raw):
    for name in raw["providers"]:
        raw["judges"] = {"b": HOSTED | {"provider": name}}
        assert parse(raw).judges["b"].hosted


def test_the_example_of_a_further_judge_in_the_shipped_configuration_is_valid(raw):
    example = re.search(r"judges: \{\} .*further judges, e\.g\. (\{.*\})", Path("config/config.yaml").read_text())[1]
    raw["judges"] = yaml.safe_load(example)
    assert parse(raw).judges


def test_an_analysis_of_user_data_may_name_a_judge_that_is_not_configured():
    assert parse({"logged_data": "mine.jsonl", "analysis": {"judge": "b"}}).analysis.judge == "b"


def test_analyze_accepts_the_name_of_a_judge(data_of_judge_b):
    result = arena_cje.analyze(data_of_judge_b / "logged.jsonl", judge="b", estimator="snips")
    assert result.document["metadata"]["data"]["judge"] == "b"
