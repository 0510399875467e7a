"""Incomplete data: what some policies or prompts lack is counted, and the rest is estimated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import arena_cje
import foreign_files
from arena_cje.results import analyze

if TYPE_CHECKING:
    from pathlib import Path

N = 200


def logged(folder: Path, **changes) -> Path:
    """Every fourth label is 1; weight 2 under `shift` where it is and 2/3 elsewhere, so that its value is .5."""
    rows = [
        {
            "prompt_id": str(k),
            "judge_score": 0.9 if k % 4 == 0 else 0.1,
            "oracle_label": float(k % 4 == 0),
            "base_policy_logprob": -10.0,
            "target_policy_logprobs": {"shift": -9.306852819440055 if k % 4 == 0 else -10.405465108108164},
        }
        | changes
        for k in range(N)
    ]
    return folder / foreign_files.write_lines(folder / "logged.jsonl", rows)


def write_draws(folder: Path, policy: str, prompts: range, **changes) -> Path:
    """Every second draw is good."""
    rows = [{"prompt_id": str(k), "judge_score": 0.9 if k % 2 == 0 else 0.1} | changes for k in prompts]
    foreign_files.write_lines(folder / "draws" / f"{policy}.jsonl", rows)
    return folder / "draws"


def codes(result: arena_cje.Result, policy: str) -> dict[str, str]:
    return {reason.code: reason.level for reason in result.verdicts[policy].reasons}


def value(result: arena_cje.Result, policy: str) -> float | None:
    return result.document["estimates"][result.policies.index(policy)]


def test_a_policy_without_log_probabilities_is_refused_by_weights_and_estimated_from_draws(tmp_path):
    data = logged(tmp_path)
    write_draws(tmp_path, "shift", range(N))
    draws = write_draws(tmp_path, "hosted", range(N))
    direct = arena_cje.analyze(data, draws, "direct")
    assert direct.policies == ("shift", "hosted")
    assert [value(direct, name) for name in direct.policies] == pytest.approx([0.5, 0.5])
    weighted = arena_cje.analyze(data, draws, "snips")
    assert value(weighted, "shift") == pytest.approx(0.5)
    assert value(weighted, "hosted") is None
    assert "log probabilities under both hosted and the base" in str(weighted.refused["hosted"])


def test_a_policy_without_fresh_draws_is_refused_by_direct_and_estimated_by_weights(tmp_path):
    data, draws = logged(tmp_path), write_draws(tmp_path, "hosted", range(N))
    direct = arena_cje.analyze(data, draws, "direct")
    assert value(direct, "hosted") == pytest.approx(0.5)
    assert value(direct, "shift") is None
    assert "add shift.jsonl to `fresh_draws`" in str(direct.refused["shift"])
    assert value(arena_cje.analyze(data, draws, "snips"), "shift") == pytest.approx(0.5)


@pytest.mark.parametrize(("n_drawn", "level"), [(196, "ok"), (120, "caution")])
def test_fresh_draws_of_some_prompts_give_the_value_on_those_prompts(tmp_path, n_drawn, level):
    data, draws = logged(tmp_path), write_draws(tmp_path, "shift", range(n_drawn))
    result = arena_cje.analyze(data, draws, "direct")
    assert value(result, "shift") == pytest.approx(0.5)
    assert result.document["n_used"]["shift"] == n_drawn
    assert codes(result, "shift")["rows_left_out"] == level
    counts = result.document["metadata"]["data"]["fresh_draws"]["shift"]
    assert counts["prompts_without_draws"] == N - n_drawn


def test_labels_in_fresh_draws_alone_are_refused_with_a_hint_to_calibration_data(tmp_path):
    data = logged(tmp_path, oracle_label=None)
    draws = write_draws(tmp_path, "shift", range(N), oracle_label=1.0)
    with pytest.raises(
        arena_cje.errors.UserError, match="fresh draws of shift have labels: pass .* as calibration_data"
    ):
        arena_cje.analyze(data, draws, "direct")
    result = arena_cje.analyze(data, draws, "direct", calibration_data=draws / "shift.jsonl")
    assert value(result, "shift") == pytest.approx(1.0)


def test_null_scores_are_left_out_and_counted(tmp_path):
    data, draws = logged(tmp_path), write_draws(tmp_path, "shift", range(N))
    rows = [{"prompt_id": str(k), "judge_score": None if k < 20 else 0.9} for k in range(N)]
    foreign_files.write_lines(draws / "shift.jsonl", rows)
    result = arena_cje.analyze(data, draws, "direct")
    assert result.document["n_used"]["shift"] == N - 20
    assert result.document["metadata"]["data"]["fresh_draws"]["shift"]["dropped"] == {"no judge score": 20}
    assert "Left out for shift: 20 of 200 fresh draws (no judge score)." in repr(result)


def test_the_table_counts_what_is_left_out_and_says_why(tmp_path):
    data = logged(tmp_path)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows = [row | ({"judge_score": None} if k < 30 else {}) for k, row in enumerate(rows)]
    draws = write_draws(tmp_path, "shift", range(10, N))
    table = " ".join(repr(arena_cje.analyze(rows, draws, "direct")).split())
    assert "170 logged responses" in table
    assert "Left out: 30 of 200 logged responses (no judge score: 30; with an oracle label: 30)." in table
    assert "Left out for shift: 20 fresh draws of prompts without a judged logged response." in table
    by_weights = repr(arena_cje.analyze(rows, draws, "snips"))
    assert "Left out:" in by_weights and "Left out for" not in by_weights  # it uses no fresh draws
    assert "Left out" not in repr(arena_cje.analyze(data, write_draws(tmp_path, "shift", range(N)), "direct"))


def test_rows_that_an_earlier_step_left_out_are_counted_too(tmp_path):
    settings = analyze.Settings.of({})
    summary = {"n_responses": 203, "dropped": {"response empty": 3}, "n_labels_dropped": 1}
    results = analyze.analyze_all(logged(tmp_path), None, {"snips": "snips"}, settings, left_out=summary)
    data = results["snips"].document["metadata"]["data"]
    assert (data["n_responses"], data["n_rows"], data["dropped"]) == (203, 200, {"response empty": 3})
    assert "Left out: 3 of 203 logged responses (response empty: 3; with an oracle label: 1)." in repr(results["snips"])


def in_two_languages(rows: list[dict], **changes) -> list[dict]:
    """Each question in two languages, with the same numbers."""
    return [
        row | {"prompt_id": f"{row['prompt_id']}-{language}"} | {k: row["prompt_id"] for k in changes}
        for row in rows
        for language in ("en", "de")
    ]


@pytest.mark.parametrize("estimator", ["calibrated-ips", "raw-ips", "direct", "dr-cpo"])
def test_translations_of_a_question_are_one_cluster(tmp_path, estimator):
    """Repeated data add no information: the cluster column gives the standard errors of the data without repetition."""
    rows = [json.loads(line) for line in logged(tmp_path).read_text().splitlines()]
    fresh = [{"prompt_id": str(k), "judge_score": 0.9 if k % 2 == 0 else 0.1} for k in range(N)]
    results = []
    for kind, both in (
        ("once", (rows, fresh)),
        ("clustered", (in_two_languages(rows, cluster=True), in_two_languages(fresh))),
        ("apart", (in_two_languages(rows), in_two_languages(fresh))),
    ):
        data = foreign_files.write_lines(tmp_path / kind / "logged.jsonl", both[0])
        foreign_files.write_lines(tmp_path / kind / "draws" / "shift.jsonl", both[1])
        results.append(arena_cje.analyze(data, tmp_path / kind / "draws", estimator))
    once, clustered, apart = results
    assert clustered.document["metadata"]["n_clusters"] == N
    for policy in ("base", "shift"):
        assert clustered.summary(policy)["estimate"] == pytest.approx(once.summary(policy)["estimate"])
        assert clustered.summary(policy)["se"] == pytest.approx(once.summary(policy)["se"], rel=0.01)
        assert apart.summary(policy)["se"] < 0.8 * clustered.summary(policy)["se"]
    once_difference, difference = (one.document["differences_to_base"]["shift"]["se"] for one in (once, clustered))
    assert difference == pytest.approx(once_difference, rel=0.01)
    path = tmp_path / "result.json"
    arena_cje.results.result.write(clustered, path, tmp_path / "r.csv", tmp_path / "result.influence.parquet")
    loaded = arena_cje.load(path)
    assert loaded.comparisons().equals(clustered.comparisons())


def test_a_prompt_in_two_clusters_is_refused(tmp_path):
    rows = [{"prompt_id": "a", "draw_idx": k, "judge_score": 0.5, "cluster": f"c{k}"} for k in range(2)]
    file = foreign_files.write_lines(tmp_path / "logged.jsonl", rows)
    with pytest.raises(arena_cje.errors.UserError, match=r":2: prompt_id 'a' is in cluster 'c1', but in 'c0' at .*:1"):
        arena_cje.analyze(file, {"x": file}, "direct")
