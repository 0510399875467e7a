"""Exported files have the numbers of results and data in the formats of other tools, and no refused number."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest

from arena_cje import files
from arena_cje.data import schemas
from arena_cje.errors import UserError
from arena_cje.estimation.isotonic import isotonic
from arena_cje.report import exports
from small_results import TARGETS, analyzed, write_data
from workflow_run import CONFIG, Run, write_prompts

VALIDATION = pl.DataFrame(
    {
        "estimator": ["calibrated-ips", "calibrated-ips", "direct"],
        "policy": ["better", "far", "better"],
        "truth": [0.7, 0.1, 0.7],
        "truth_se": [0.01, 0.01, 0.01],
        "absolute_error": [0.02, None, 0.01],
        "covered": [True, None, False],
    }
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def result(data):
    """`far` is refused."""
    return analyzed(data)


@pytest.fixture(scope="module")
def logged(data, result):
    """The logged rows of the data, with a label on every row."""
    return schemas.read_jsonl(data / "logged.jsonl")


def test_rewards_are_the_isotonic_fit_of_labels_on_scores(data):
    """By hand, with a label on every row."""
    rows = schemas.read_jsonl(data / "logged.jsonl")
    score, label = (np.array([row[name] for row in rows]) for name in ("judge_score", "oracle_label"))
    rewards = exports.logged_rows(data / "logged.jsonl", analyzed(data, coverage=None))[1]
    np.testing.assert_allclose(rewards, isotonic(score, label)(score))


def test_rewards_average_to_the_base_policys_value(data, result, tmp_path):
    """The data set at a coverage has only the labels of that coverage."""
    analysis = analyzed(data)
    sample = label_sample(data, tmp_path, 0.5)
    assert np.mean(exports.logged_rows(sample, analysis)[1]) == pytest.approx(analysis.summary("base")["estimate"])


def label_sample(data, folder, coverage):
    """The data set as the workflow writes it at a coverage."""
    from arena_cje.data.user_data import read_user_data
    from arena_cje.data.write import write_logged

    write_logged(folder / "cje_dataset.jsonl", read_user_data(data / "logged.jsonl", None, coverage, 42).logged)
    return folder / "cje_dataset.jsonl"


def test_rewards_are_on_the_scale_of_the_labels(data, tmp_path):
    rows = schemas.read_jsonl(data / "logged.jsonl")
    moved = [row | {name: 1 + 9 * row[name] for name in ("judge_score", "oracle_label")} for row in rows]
    files.write_jsonl(tmp_path / "logged.jsonl", moved)
    ten = analyzed_without_draws(tmp_path / "logged.jsonl", scale=(1, 10))
    plain = analyzed_without_draws(data / "logged.jsonl")
    scaled_rows, rewards = exports.logged_rows(tmp_path / "logged.jsonl", ten)
    np.testing.assert_allclose([row["oracle_label"] for row in scaled_rows], [row["oracle_label"] for row in moved])
    np.testing.assert_allclose(
        rewards, 1 + 9 * np.array(exports.logged_rows(data / "logged.jsonl", plain)[1]), atol=1e-9
    )


def analyzed_without_draws(logged, **options):
    import arena_cje

    return arena_cje.analyze(logged, estimator="snips", **options)


def test_labels_of_calibration_data_are_used_for_the_rewards(data, tmp_path):
    more = [{"prompt_id": f"new{k}", "judge_score": k / 40, "oracle_label": 1.0} for k in range(40)]
    files.write_jsonl(tmp_path / "more.jsonl", more)
    sample = label_sample(data, tmp_path, 0.1)
    analysis = analyzed_without_draws(sample, calibration_data=tmp_path / "more.jsonl")
    rewards = exports.logged_rows(sample, analysis, tmp_path / "more.jsonl")[1]
    assert np.mean(rewards) == pytest.approx(analysis.summary("base")["estimate"])
    assert np.mean(rewards) > np.mean(exports.logged_rows(sample, analysis)[1]) + 0.1


def test_without_calibration_the_exported_rewards_are_missing(data):
    assert set(exports.logged_rows(data / "logged.jsonl", analyzed(data, rewards="judge"))[1]) == {None}


def test_rewards_of_a_two_stage_calibrator_have_the_mean_of_the_labels(data):
    analysis = analyzed(data, coverage=None, calibration="two_stage", covariates=["response_length"])
    rewards = exports.logged_rows(data / "logged.jsonl", analysis)[1]
    label = [row["oracle_label"] for row in schemas.read_jsonl(data / "logged.jsonl")]
    assert np.mean(rewards) == pytest.approx(np.mean(label))


def test_a_row_without_a_score_has_no_reward_and_changes_no_other_reward(data, result, tmp_path):
    rows = schemas.read_jsonl(data / "logged.jsonl")
    rewards = []
    for score in (rows[3]["judge_score"], None):
        rows[3] |= {"oracle_label": None, "judge_score": score}  # unlabelled, so that the calibrator is the same
        files.write_jsonl(tmp_path / "logged.jsonl", rows)
        rewards.append(exports.logged_rows(tmp_path / "logged.jsonl", result)[1])
    with_score, without = rewards
    assert without[3] is None
    assert without[:3] + without[4:] == with_score[:3] + with_score[4:]


def test_fields_under_metadata_are_exported_like_those_at_the_top_level(data, tmp_path):
    """Older files have id, score and label under metadata, and do not number the rows of a prompt."""
    rows = schemas.read_jsonl(data / "logged.jsonl")
    plain = list(
        exports.log_rows(
            exports.logged_rows(data / "logged.jsonl", analyzed_without_draws(data / "logged.jsonl"))[0],
            range(400),
            "b",
        )
    )
    fields = ("prompt_id", "judge_score", "oracle_label")
    moved = [
        {name: value for name, value in row.items() if name not in fields}
        | {"metadata": {name: row[name] for name in fields}}
        for row in rows
    ]
    files.write_jsonl(tmp_path / "old.jsonl", moved)
    result = analyzed_without_draws(tmp_path / "old.jsonl")
    assert list(exports.log_rows(exports.logged_rows(tmp_path / "old.jsonl", result)[0], range(400), "b")) == plain
    assert [row["judge_raw"] for row in plain] == [row["judge_score"] for row in rows]
    files.write_jsonl(tmp_path / "twice.jsonl", [*rows, rows[0] | {"response": "said otherwise"}])
    twice = exports.logged_rows(tmp_path / "twice.jsonl", analyzed_without_draws(tmp_path / "twice.jsonl"))[0]
    uids = [row["uid"] for row in exports.log_rows(twice, range(401), "b")]
    assert uids[0] == f"{rows[0]['prompt_id']}#0" and uids[-1] == f"{rows[0]['prompt_id']}#1"
    assert len(set(uids)) == 401


def test_sampler_rows_have_the_log_probabilities_of_the_logged_data(logged):
    rows = list(exports.sampler_rows(logged, [0.5] * len(logged)))
    for row, source in zip(rows, logged, strict=True):
        assert row["total_logprob"] == source["base_policy_logprob"]
        assert row["target_logps"] == source["target_policy_logprobs"]
        assert list(row["target_logps"]) == list(TARGETS)
        assert (row["prompt"], row["response"]) == (source["prompt"], source["response"])


def test_responses_outside_the_support_of_a_target_keep_their_mark(logged):
    impossible = logged[0] | {"metadata": {"outside_support": ["far"]}}
    impossible["target_policy_logprobs"] = impossible["target_policy_logprobs"] | {"far": -10000.0}
    first, second = exports.sampler_rows([impossible, logged[1]], [0.5, 0.5])
    assert first["metadata"] == {"outside_support": ["far"]}
    assert "metadata" not in second


def test_log_rows_have_the_fields_of_the_guide_and_null_for_unknown_values(logged):
    rows = list(exports.log_rows(logged, [0.25] * len(logged), "base", {logged[0]["prompt_id"]: [-20.0, -40.0]}))
    guide = ("uid", "prompt", "answer", "token_logprobs", "action", "sequence_logp", "pi0", "oracle_score", "judge_raw")
    assert tuple(rows[0]) == (*guide, "calibrated_reward")
    assert rows[0]["token_logprobs"] == [-20.0, -40.0] and rows[1]["token_logprobs"] is None
    assert sum(rows[0]["token_logprobs"]) == rows[0]["sequence_logp"] == -60.0
    assert [row["oracle_score"] for row in rows] == [row["oracle_label"] for row in logged]
    assert {row["action"] for row in rows} == {"base"}


@pytest.mark.parametrize("logprob", [0.0, -45.7, -700.0])
def test_pi0_is_the_probability(logprob):
    assert exports.probability(logprob) == math.exp(logprob) > 0


@pytest.mark.parametrize("logprob", [-709.0, -740.0, -800.0, -1e6, -math.inf, None])
def test_a_probability_too_small_to_hold_is_null_not_zero(logprob):
    """From -708.4 nats on digits are lost, from -745.2 all of them."""
    assert exports.probability(logprob) is None


def test_uids_are_unique_where_a_prompt_has_several_rows(logged):
    again = [logged[0], logged[0] | {"response": "other"}, logged[1]]
    numbered = [row | {"draw_idx": draw} for row, draw in zip(again, (4, 2, 0), strict=True)]
    first, last = logged[0]["prompt_id"], logged[1]["prompt_id"]
    assert [row["uid"] for row in exports.log_rows(numbered, [None] * 3, "base")] == [f"{first}#4", f"{first}#2", last]


def test_token_level_results_have_the_published_numbers(result):
    document = exports.token_level(result, "0.5", exports.truths_of(VALIDATION, "calibrated-ips"))
    assert list(document["results"]) == [name for name in TARGETS if name != "far"]
    for k, policy in enumerate(result.policies):
        if policy != "far":
            entry = document["results"][policy]
            assert entry["v_hat"] == result.estimates[k] and entry["se"] == result.standard_errors[k]
            assert [entry["ci_low"], entry["ci_high"]] == result.confidence_intervals[k].tolist()
    assert document["results"]["better"]["oracle_truth"] == 0.7
    assert document["results"]["better"]["absolute_error"] == 0.02
    assert document["results"]["near"]["oracle_truth"] is None
    assert document["base_policy"]["v_hat"] == result.summary("base")["estimate"]
    holm = {(row["first"], row["second"]): row["p_holm"] for row in document["p_values_corrected"]}
    assert holm["better", "base"] < 0.001 and holm["far", "base"] is None


def test_a_refused_policy_has_its_reason_and_no_number(result):
    document = exports.token_level(result, "0.5", exports.truths_of(VALIDATION, "calibrated-ips"))
    assert "far" not in document["results"]  # so that the best by `v_hat` can be looked up
    best = max(document["results"].keys(), key=lambda name: document["results"][name]["v_hat"])
    assert best == result.best
    entry = document["refused"]["far"]
    assert [entry[name] for name in ("v_hat", "se", "ci_low", "ci_high", "absolute_error")] == [None] * 5
    error = {"far": {"truth": 0.1, "absolute_error": 0.3}}  # which would give the number away
    assert exports.token_level(result, "0.5", error)["refused"]["far"]["absolute_error"] is None
    assert entry["verdict"] == "refuse" and entry["reasons"] == result.refused["far"]["reasons"]
    assert any(sentence.startswith("refuse: far: raw ESS") for sentence in document["guard_rail_violations"])
    assert has_no_refused_number(files.json_text(document), result)


def has_no_refused_number(text, result):
    number = result.refused["far"]
    values = (number["estimate"], number["se"], *number["confidence_interval"])
    return not any(repr(value)[:8] in text or f"{value:.4f}" in text for value in values)


def test_violations_are_sorted_with_refusals_first(data):
    sentences = exports.violations(analyzed(data, "ips"))
    kinds = [sentence.split(":")[0] for sentence in sentences]
    assert kinds == sorted(kinds, key=["refuse", "caution"].index)
    assert "refuse" in kinds


def test_poor_coverage_of_the_truth_is_a_violated_guard_rail(data):
    result = analyzed(data, "direct")
    truths = {policy: {"covered": True} for policy in result.all_policies}
    assert exports.violations(result, truths) == exports.violations(result)
    missed = {policy: {"covered": False} for policy in result.all_policies}
    (*others, last) = exports.violations(result, missed)
    assert others == exports.violations(result)
    assert last.startswith(
        f"caution: poor interval coverage: 0 of {len(missed)} published intervals of direct contain the true value"
    )


def test_the_leaderboard_ranks_published_policies_and_ends_with_the_refused_ones(data, result):
    other = analyzed(data, "direct")
    table = exports.leaderboard([result, other])
    assert table["estimator"].to_list() == ["calibrated-ips"] * 5 + ["direct"] * 5
    first = table.filter(pl.col("estimator") == "calibrated-ips")
    assert first["policy"].to_list() == ["better", "near", "base", "same", "far"]
    assert first["rank"].to_list() == [1, 2, 3, 3, None]
    assert first["estimate"].to_list()[:4] == sorted(first["estimate"].to_list()[:4], reverse=True)
    last = first.row(-1, named=True)
    named = ("estimator", "policy", "role", "decision", "status", "reasons")
    assert {name for name, value in last.items() if value is not None} == set(named)
    assert "effective" in last["reasons"]
    assert has_no_refused_number(table.write_csv(), result) and has_no_refused_number(table.write_csv(), other)


def test_the_tidy_table_has_every_policy_of_every_result_once(data, result):
    direct = analyzed(data, "direct", coverage=0.25)
    table = exports.tidy([("0.5", result), ("0.25", direct)], {"0.5": VALIDATION})
    assert len(table) == 10
    assert table.select("coverage", "estimator", "policy").is_unique().all()
    refused = table.filter(pl.col("policy") == "far")
    assert refused["status"].to_list() == ["refuse", "refuse"]
    for name in ("estimate", "se", "ci_lower", "ci_upper", "absolute_error", "covered"):
        assert refused[name].to_list() == [None, None]
    assert refused["refused_estimate"].to_list() == [r.refused["far"]["estimate"] for r in (result, direct)]
    better = table.filter(pl.col("policy") == "better")
    assert better["truth"].to_list() == [0.7, None]  # the row of `direct` is of another coverage
    assert better["covered"].to_list() == [True, None]
    assert better["n_oracle"].to_list() == [200, 100]


def test_the_tidy_table_without_truth_has_its_columns_empty(result):
    table = exports.tidy([("0.5", result)])
    assert table["truth"].null_count() == len(table) == 5
    assert table.columns == exports.tidy([("0.5", result)], {"0.5": VALIDATION}).columns
    assert table.schema == exports.tidy([("0.5", result)], {"0.5": VALIDATION}).schema


def test_an_export_without_results_is_refused():
    with pytest.raises(UserError, match="no result to export"):
        exports.tidy([])


TABLES = ("results/export/results.csv", "results/export/results.parquet")


def test_exports_of_the_workflow_agree_with_its_data_and_validation(tmp_path, tiny_model):
    """In a run with a language model, token log probabilities sum to the total, and truths are those of validation.csv."""
    (tmp_path / "tiny.gguf").symlink_to(tiny_model)
    write_prompts(tmp_path / "prompts.jsonl", 40)
    few = {"shard_size": 24, "coverages": ["0.5"], "estimators": ["snips", "direct"]}
    policies = {name: CONFIG["policies"][name] for name in ("base", "clone")}
    run = Run(tmp_path, CONFIG | few | {"policies": policies})
    run.snakemake(
        *(f"results/export/coverage_0.5/{name}" for name in FILES), *TABLES, "results/coverage_0.5/validation.csv"
    )
    folder = run.path("export/coverage_0.5")
    logs = schemas.read_jsonl(folder / "stochastic_log.jsonl")
    sampler = schemas.read_jsonl(folder / "precomputed_sampler.jsonl")
    data = schemas.read_jsonl(run.path("coverage_0.5/cje_dataset.jsonl"))
    assert len(logs) == len(sampler) == len(data)
    for row, other, source in zip(logs, sampler, data, strict=True):
        assert math.fsum(row["token_logprobs"]) == pytest.approx(row["sequence_logp"]) == source["base_policy_logprob"]
        assert other["target_logps"]["clone"] == other["total_logprob"]
        assert row["calibrated_reward"] == other["reward"] is not None
        assert row["oracle_score"] == source["oracle_label"]
    truths = exports.truths_of(exports.read_validation(run.path("coverage_0.5/validation.csv")), "snips")
    document = json.loads((folder / "token_level_cje_results.json").read_text())
    assert document["metadata"]["estimator"] == "snips"
    entries = document["results"] | document["refused"]
    assert entries["clone"]["oracle_truth"] == truths["clone"]["truth"]
    tidy = pl.read_parquet(run.path("export/results.parquet"))
    assert len(tidy) == 2 * 2 and tidy["truth"].null_count() == 0
    assert pl.read_csv(run.path("export/results.csv")).shape == tidy.shape
    assert "Nothing to be done" in run.snakemake(*TABLES)


FILES = ("precomputed_sampler.jsonl", "stochastic_log.jsonl", "token_level_cje_results.json", "leaderboard.csv")


def test_the_console_shows_weights_only_for_an_estimator_that_uses_them(data):
    with_weights, without = analyzed(data, "snips").details(), analyzed(data, "direct").details()
    assert "| Policy | ESS    | Mean Weight | Status   | Issues" in with_weights
    assert with_weights.index("better  ") < with_weights.index("| Policy")  # below the estimates
    rows = {cells[1].strip(): cells for line in with_weights.splitlines() if len(cells := line.split("|")) == 7}
    assert rows["same"][2].strip() == "100.0%" and rows["same"][4].strip() == "GOOD"
    assert rows["far"][4].strip() == "CRITICAL"
    assert "Mean Weight" not in without
    assert max(map(len, with_weights.splitlines())) <= 116
