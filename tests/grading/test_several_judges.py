"""Further judges side by side: their scores may be analysed instead, or be covariates; who is named must be there."""

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


def changed(folder, of_row, into):
    """The rows of a data set and of its draws as a function makes them, in a folder of their own."""
    for path in (folder / "logged.jsonl", *(folder / "draws").iterdir()):
        rows = [of_row(k, row) for k, row in enumerate(schemas.read_jsonl(path))]
        (into / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        files.write_jsonl(into / path.relative_to(folder), rows)
    return into


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def moved(data, tmp_path_factory):
    """The scores of `data` are those of judge `b`; `judge_score` and its distribution have other values."""

    def of_row(k, row):
        wrong = {"judge_score": 0.5, "judge_distribution": [[0.25, 0.5], [0.75, 0.5]]}
        return row | wrong | {"metadata": {"judge_b": row["judge_score"], "judge_c": 1 - row["judge_score"]}}

    return changed(data, of_row, tmp_path_factory.mktemp("moved"))


@pytest.mark.parametrize("estimator", ["snips", "direct", "dr-cpo"])
def test_the_judge_that_is_named_is_the_judge(data, moved, estimator):
    expected, result = analyzed(data, estimator), analyzed(moved, estimator, judge="b")
    check(result.document, estimator)
    np.testing.assert_array_equal(result.influence, expected.influence)
    np.testing.assert_array_equal(result.estimates, expected.estimates)
    assert (result.judge, expected.judge) == ("b", None)
    other = analyzed(moved, estimator, judge="c")
    assert not np.allclose(other.influence, expected.influence)


def test_rows_without_its_score_are_left_out_and_counted(moved, tmp_path):
    def of_row(k, row):
        return row | {"metadata": row["metadata"] | ({"judge_b": None} if k in (3, 5) else {})}

    folder = changed(moved, of_row, tmp_path)
    result = analyzed(folder, "direct", judge="b")
    counted = result.document["metadata"]["data"]
    assert (counted["n_responses"], counted["n_rows"], counted["dropped"]) == (400, 398, {"no judge score": 2})
    assert {counts["n_rows"] for counts in counted["fresh_draws"].values()} == {398}
    assert analyzed(folder, "direct").document["metadata"]["data"]["n_rows"] == 400


def test_a_row_without_the_first_judges_score_serves_the_other(moved, tmp_path):
    folder = changed(moved, lambda k, row: row | {"judge_score": None, "judge_distribution": None}, tmp_path)
    assert analyzed(folder, "snips", judge="b").document["metadata"]["data"]["n_rows"] == 400
    with pytest.raises(UserError, match="none of 400 rows has a judge_score"):
        analyzed(folder, "snips")


def test_a_judge_that_no_row_knows_is_refused_with_the_nearest_name(moved):
    with pytest.raises(UserError, match=r"none of 400 rows has a judge_bb \(did you mean 'judge_b'\?\)"):
        analyzed(moved, "snips", judge="bb")


def test_its_scores_have_the_range_of_scores(moved, tmp_path):
    folder = changed(moved, lambda k, row: row | {"metadata": {"judge_b": 1.5}}, tmp_path)
    with pytest.raises(UserError, match=r"logged.jsonl:1: metadata.judge_b is 1.5, expected at most 1"):
        analyzed(folder, "snips", judge="b")


def test_it_scores_calibration_data_too(moved, tmp_path):
    beside = [
        {"prompt_id": f"x{k}", "policy": "z", "judge_score": 0.5, "oracle_label": 0.5, "metadata": {"judge_b": k / 10}}
        for k in range(3)
    ]
    files.write_jsonl(tmp_path / "beside.jsonl", beside)
    calibration, _ = load_calibration(
        tmp_path / "beside.jsonl", logged=moved / "logged.jsonl", reading=Reading(judge="b")
    )
    assert calibration.judged.score.tolist() == [0.0, 0.1, 0.2]


def test_a_covariate_may_be_a_judge_and_a_row_that_it_gave_none_is_left_out(moved, tmp_path):
    def of_row(k, row):
        metadata = row["metadata"] | ({"judge_c": None} if k == 3 else {})
        return row | {"judge_score": metadata["judge_b"], "judge_distribution": None, "metadata": metadata}

    folder = changed(moved, of_row, tmp_path)
    logged, counts = load_logged(folder / "logged.jsonl", reading=Reading(["judge_c"]))
    assert counts["dropped"] == {"no judge score": 1}
    np.testing.assert_allclose(logged.covariates[:, 0], 1 - logged.judge_score)
    draws, _ = load_draws(folder / "draws" / "near.jsonl", "near", logged.prompt_id, reading=Reading(["judge_c"]))
    assert draws.covariates.shape == (399, 1, 1)
    rows = [row | {"metadata": {}} for row in schemas.read_jsonl(folder / "logged.jsonl")]
    files.write_jsonl(folder / "logged.jsonl", rows)
    with pytest.raises(UserError, match="covariate 'judge_c' is missing"):
        load_logged(folder / "logged.jsonl", reading=Reading(["judge_c"]))


def test_what_is_made_of_a_result_takes_its_judge(data, moved):
    expected, result = analyzed(data, "snips"), analyzed(moved, "snips", judge="b")
    file = moved / "logged.jsonl"
    assert exports.logged_rows(file, result)[1] == exports.logged_rows(data / "logged.jsonl", expected)[1]
    assert [row["judge_score"] for row in exports.logged_rows(file, result)[0]] == [
        row["metadata"]["judge_b"] for row in schemas.read_jsonl(file)
    ]
    score = load_logged(data / "logged.jsonl", reading=expected.reading)[0].judge_score
    np.testing.assert_array_equal(load_logged(file, reading=result.reading)[0].judge_score, score)
    files.write_json(moved / "summary.json", {"base_policy": "base"})
    paths = {"dataset": [str(file)], "summary": [str(moved / "summary.json")]}
    logged = sources.Sources(paths, "1.0", {"scores_of": "b"}).logged
    np.testing.assert_array_equal(logged.judge_score, score)
    np.testing.assert_array_equal(notebook.read_logged(result, file).judge_score, score)


def graded(k, score):
    return {"prompt_id": f"q{k}", "draw_idx": 0, "score": score, "reason": None if score is not None else "cut"}


def test_scores_of_further_judges_stand_beside_the_judges_own():
    responses = [
        {"prompt_id": f"q{k}", "draw_idx": 0, "prompt": "p", "response": "r", "token_ids": [1], "policy": "a"}
        | {"finish_reason": "stop", "status": "ok"}
        for k in range(4)
    ]
    grades = {
        "judge": [graded(0, 0.1), graded(1, None), graded(2, 0.2), graded(3, None)],
        "judges/b": [graded(0, 0.3), graded(1, 0.4), graded(2, None), graded(3, None)],
        "oracle": [graded(1, 1.0)],
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
def test_a_slip_gets_one_sentence(raw, changes, sentence):
    for path, value in changes.items():
        block, (*above, key) = raw, path.split(".")
        for name in above:
            block = block[name]
        block[key] = value
    with pytest.raises(UserError) as error:
        parse(raw)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_what_fits_together_passes(raw):
    raw["judges"] = {
        "b": HOSTED,
        "c": HOSTED | {"model": "n"},
        "both": {"ensemble": ["b", "c"]},
        "all": {"ensemble": ["both", "b"]},
        "echo": {
            "provider": "fireworks",
            "model": "llama",
        },  # scores given text, so that the likelihood rubric is in order
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


def test_shipped_providers_speak_to_whom_they_name(raw):
    for name in raw["providers"]:
        raw["judges"] = {"b": HOSTED | {"provider": name}}
        assert parse(raw).judges["b"].hosted


def test_the_example_of_a_judge_is_a_judge(raw):
    example = re.search(r"judges: \{\} .*further judges, e\.g\. (\{.*\})", Path("config/config.yaml").read_text())[1]
    raw["judges"] = yaml.safe_load(example)
    assert parse(raw).judges


def test_data_brought_along_may_name_a_judge_of_their_rows():
    assert parse({"logged_data": "mine.jsonl", "analysis": {"judge": "b"}}).analysis.judge == "b"


def test_the_entry_point_takes_a_judge_by_name(moved):
    result = arena_cje.analyze(moved / "logged.jsonl", judge="b", estimator="snips")
    assert result.document["metadata"]["data"]["judge"] == "b"
