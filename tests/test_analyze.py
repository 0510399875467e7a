"""A result says the same from memory, from its file and in its table; what is refused is nowhere published."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import arena_cje
from arena_cje import estimators, simulate
from arena_cje.analysis import write
from arena_cje.dataset import bring, write_draws, write_logged
from arena_cje.errors import UserError
from arena_cje.estimation.estimate import Options, evaluate
from arena_cje.simulate import Target, World

FAR = World(targets={"same": Target(), "near": Target(0.2, 0.2), "far": Target(-3.0, 2.0)}, coverage=0.5)


def rows_of(logged):
    """The rows of simulated logged data, in the CJE format."""
    return [
        {
            "prompt_id": str(logged.prompt_id[i]),
            "prompt": "x",
            "response": "y",
            "base_policy_logprob": -60.0,
            "target_policy_logprobs": dict(zip(logged.policies, (-60.0 + logged.log_ratio[i]).tolist(), strict=True)),
            "judge_score": float(logged.judge_score[i]),
            "oracle_label": float(logged.oracle_label[i]) if logged.labelled[i] else None,
            "metadata": {},
        }
        for i in range(len(logged.prompt_id))
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files of a world with a policy equal to the base, one near it and one out of reach."""
    folder = tmp_path_factory.mktemp("data")
    logged, draws, _ = simulate.draw(FAR, 300, 7)
    write_logged(folder / "logged.jsonl", rows_of(logged))
    for policy, own in draws.items():
        rows = [
            {"prompt_id": str(name), "judge_score": float(score), "draw_idx": 0}
            for name, score in zip(logged.prompt_id, own.judge_score[:, 0], strict=True)
        ]
        write_draws(folder / "fresh" / f"{policy}.jsonl", rows)
    return folder


@pytest.fixture(scope="module", params=estimators.NAMES)
def result(request, data):
    return arena_cje.analyze(data / "logged.jsonl", data / "fresh", request.param, oracle_coverage=0.4)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, arena_cje; assert not {'polars', 'numpy', 'scipy'} & set(sys.modules); arena_cje.analyze"
    home = {"PYTHONPATH": str(Path(arena_cje.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | home)


def test_a_package_without_such_a_name_says_so():
    with pytest.raises(AttributeError, match="analyse"):
        arena_cje.analyse  # noqa: B018


def test_policies_come_in_declared_order(result):
    assert result.policies == ("same", "near", "far")
    assert result.estimates.shape == result.standard_errors.shape == (3,)
    assert result.confidence_intervals.shape == (3, 2)
    assert list(result.verdicts) == ["base", "same", "near", "far"]
    assert result.influence.shape == (300, 3)


def test_the_result_is_that_of_the_arrays(data):
    logged, _, _ = simulate.draw(FAR, 300, 7)
    evaluation = evaluate("snips", logged, None, Options())
    result = arena_cje.analyze(data / "logged.jsonl", estimator="snips")
    assert result.summary("near")["estimate"] == pytest.approx(evaluation.estimates["near"].value, abs=1e-12)
    assert result.summary("base")["se"] == pytest.approx(evaluation.base.se, abs=1e-12)


def test_a_refused_policy_has_its_number_under_refused_alone(result):
    assert "far" in result.refused
    assert np.isnan(result.estimates[2]) and np.isnan(result.standard_errors[2])
    assert np.isnan(result.confidence_intervals[2]).all()
    held = result.refused["far"]
    assert 0 <= held["estimate"] <= 1 and held["se"] > 0 and held["reasons"]
    row = result.to_frame().row(2, named=True)
    assert [row[name] for name in ("estimate", "se", "ci_lower", "ci_upper")] == [None] * 4
    assert row["refused_estimate"] == held["estimate"]
    printed = next(line for line in repr(result).splitlines() if line.startswith("far"))
    assert "refused" in printed and f"{held['estimate']:.3f}" not in printed
    assert all(reason in " ".join(repr(result).split()) for reason in held["reasons"])
    told = [line.split(":")[:2] for line in repr(result).splitlines() if ": " in line]
    assert {level for level, policies in told if "far" in policies} == {"refuse"}


def test_intervals_contain_their_estimates(result):
    published = ~np.isnan(result.estimates)
    low, high = result.confidence_intervals[published].T
    assert published[0]
    assert ((low < result.estimates[published]) & (result.estimates[published] < high)).all()


def test_the_standard_error_is_made_of_its_components(result):
    for policy in ("base", *result.policies):
        made = result.document["se_components"][policy]
        parts = np.array([made["sampling"], made["oracle"], made["cap_bias"]])
        assert np.sqrt(np.sum(parts**2)) == pytest.approx(result.summary(policy)["se"], rel=1e-12)
        spread = np.array(made["jackknife_deviations"])
        folds = made["n_jackknife"]
        assert np.sqrt((folds - 1) / folds * np.sum(spread**2)) == pytest.approx(made["oracle"], rel=1e-9)


def test_what_capped_weights_did_to_an_estimate_is_written_down(data):
    result = arena_cje.analyze(data / "logged.jsonl", var_cap=0.01)
    plain = arena_cje.analyze(data / "logged.jsonl")
    drawn = result.summary("near")["estimate"] - plain.summary("near")["estimate"]
    assert result.document["se_components"]["near"]["cap_bias"] == pytest.approx(drawn, abs=1e-9)
    assert drawn < -0.001
    assert [plain.document["se_components"][name]["cap_bias"] for name in ("base", "same", "near")] == [0, 0, 0]


def test_labels_that_speak_for_the_base_policy_are_shown(data, result):
    found = result.document["metadata"]["diagnostics"]["base"]
    assert 0.8 < found["label_share"] <= 1
    assert found["effective_labels"] == pytest.approx(120 * found["label_share"])
    assert result.to_frame().row(-1, named=True)["effective_labels"] == found["effective_labels"]
    shown = next(line for line in repr(result).splitlines() if line.startswith("base"))
    assert shown.split()[-2:] == [f"{found['effective_labels']:.0f}", "ok"]


def test_weights_are_described_as_used_and_as_they_were(data):
    found = arena_cje.analyze(data / "logged.jsonl").document["metadata"]["diagnostics"]
    log_ratio = simulate.draw(FAR, 300, 7)[0].log_ratio[:, 1]
    weight = np.exp(log_ratio) / np.exp(log_ratio).mean()
    assert found["near"]["ess_raw"] == pytest.approx(1 / np.mean(weight**2))
    assert found["near"]["max_weight_raw"] == pytest.approx(weight.max())
    assert found["near"]["ess"] > found["near"]["ess_raw"]
    # Equal weights have no tail: an infinite index is known, unlike one that could not be computed.
    assert found["same"]["weights"]["raw"]["tail_index"] == "inf"


def test_rows_left_out_are_counted_for_their_policy_alone(data, tmp_path):
    rows = [json.loads(line) for line in (data / "logged.jsonl").read_text().splitlines()]
    rows[0]["target_policy_logprobs"]["near"] = None
    write_logged(tmp_path / "x.jsonl", rows)
    table = arena_cje.analyze(tmp_path / "x.jsonl", estimator="snips").to_frame()
    assert dict(table.select("policy", "n_used").iter_rows()) == {"same": 300, "near": 299, "far": 300, "base": 300}


def test_a_prompt_counts_once_however_many_draws_it_has(data):
    prompts = [f"prompt-{k}" for k in range(300)]
    draws = pl.DataFrame({"prompt_id": ["prompt-0"] * 3 + prompts[1:], "judge_score": [1.0] * 3 + [0.5] * 299})
    result = arena_cje.analyze(data / "logged.jsonl", dict.fromkeys(("same", "near", "far"), draws), "direct")
    assert result.document["metadata"]["diagnostics"]["near"]["boundary"]["out_of_range"] == pytest.approx(1 / 300)


def test_the_bases_own_draws_change_nothing(data):
    fresh = {policy: data / "fresh" / f"{policy}.jsonl" for policy in ("same", "near", "far")}
    with_base = fresh | {"base": data / "fresh" / "same.jsonl"}
    one, other = (arena_cje.analyze(data / "logged.jsonl", draws, "direct") for draws in (fresh, with_base))
    assert one.to_json() == other.to_json()


def test_labels_are_counted_as_masked(result):
    metadata = result.document["metadata"]
    assert (metadata["n_oracle"], metadata["n_labels_wanted"], metadata["n_labels_found"]) == (120, 120, 150)
    assert metadata["oracle_coverage"] == 0.4
    assert result.document["calibration"]["n_labels"] == 120


def test_a_result_comes_back_from_its_files(result, tmp_path):
    write(result, tmp_path / "e.json", tmp_path / "e.csv", tmp_path / "e.influence.parquet")
    back = arena_cje.load(tmp_path / "e.json")
    assert back.to_json() == result.to_json() == (tmp_path / "e.json").read_text()
    assert back.to_frame().equals(result.to_frame())
    assert repr(back) == repr(result)
    np.testing.assert_array_equal(back.influence, result.influence)
    np.testing.assert_array_equal(back.base_influence, result.base_influence)
    assert back.prompt_id.tolist() == result.prompt_id.tolist()
    header = (tmp_path / "e.csv").read_text().splitlines()[0]
    assert header.startswith("policy,estimate,se,ci_lower,ci_upper,ess,max_weight,")
    (tmp_path / "e.influence.parquet").unlink()
    alone = arena_cje.load(tmp_path / "e.json")
    assert alone.influence is None and alone.to_json() == result.to_json()
    with pytest.raises(UserError, match="without its influence values"):
        write(alone, *(tmp_path / name for name in ("f.json", "f.csv", "f.influence.parquet")))


def test_two_runs_give_equal_bytes(data):
    one, other = (arena_cje.analyze(data / "logged.jsonl", oracle_coverage=0.2) for _ in range(2))
    assert one.to_json() == other.to_json()


def test_the_results_file_has_the_documented_shape(result):
    document = json.loads(result.to_json())
    assert {"estimates", "standard_errors", "confidence_intervals", "metadata", "base_policy"} <= set(document)
    metadata = {"target_policies", "estimator", "n_samples", "oracle_coverage", "diagnostics"}
    assert metadata <= set(document["metadata"])
    assert str(document).count("/tmp") == 0


def test_a_file_that_is_no_result_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"estimates": []}')
    with pytest.raises(UserError, match="not a results file"):
        arena_cje.load(tmp_path / "x.json")
    with pytest.raises(UserError, match="no such file"):
        arena_cje.load(tmp_path / "gone.json")


def test_data_brought_at_a_coverage_is_data_analyzed_at_it(data, tmp_path):
    rows, _, summary = bring(data / "logged.jsonl", None, 0.3, 42, 0.0)
    write_logged(tmp_path / "cje_dataset.jsonl", rows)
    brought = arena_cje.analyze(tmp_path / "cje_dataset.jsonl")
    directly = arena_cje.analyze(data / "logged.jsonl", oracle_coverage=0.3)
    assert summary["n_oracle"] == 90
    np.testing.assert_array_equal(brought.influence, directly.influence)
    np.testing.assert_array_equal(brought.estimates, directly.estimates)


def test_a_frame_is_as_good_as_a_file(data):
    fresh = {p: pl.read_ndjson(data / "fresh" / f"{p}.jsonl") for p in ("same", "near", "far")}
    of_frame = arena_cje.analyze(pl.read_ndjson(data / "logged.jsonl"), fresh, "direct")
    of_file = arena_cje.analyze(data / "logged.jsonl", data / "fresh", "direct")
    assert of_frame.to_json() == of_file.to_json()


def test_full_labels_and_equal_policies_give_the_mean_label(tmp_path):
    logged, _, _ = simulate.draw(replace(FAR, coverage=1.0), 80, 3)
    write_logged(tmp_path / "x.jsonl", rows_of(logged))
    for name in ("ips", "snips", "raw-ips", "calibrated-ips"):
        if name not in estimators.NAMES:
            continue
        result = arena_cje.analyze(tmp_path / "x.jsonl", estimator=name)
        assert result.estimates[0] == pytest.approx(logged.oracle_label.mean(), abs=1e-12)
        assert result.standard_errors[0] == pytest.approx(logged.oracle_label.std(ddof=1) / np.sqrt(80), rel=1e-9)


def test_fresh_draws_name_the_targets_where_nothing_is_scored(data, tmp_path):
    rows = [
        json.loads(line) | {"target_policy_logprobs": {}} for line in (data / "logged.jsonl").read_text().splitlines()
    ]
    write_logged(tmp_path / "x.jsonl", rows)
    result = arena_cje.analyze(tmp_path / "x.jsonl", data / "fresh", "direct")
    scored = arena_cje.analyze(data / "logged.jsonl", data / "fresh", "direct")
    assert result.policies == ("far", "near", "same")
    assert result.summary("near") == scored.summary("near")
    assert result.to_frame()["ess_raw"].is_null().all()
    with pytest.raises(UserError, match="no target policy"):
        arena_cje.analyze(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"estimator": "calibratd-ips"}, "unknown estimator 'calibratd-ips'.*calibrated-ips"),
        ({"estimator": "direct"}, "'direct' needs fresh draws"),
        ({"fresh_draws": "gone"}, "gone: no such "),
        ({"oracle_coverage": 0.0}, "oracle_coverage must lie in"),
        ({"oracle_coverage": 1.5}, "oracle_coverage must lie in"),
        ({"oracle_coverage": 0.001}, "at least 4 prompts"),
        ({"alpha": 1.0}, "alpha must lie in"),
        ({"n_folds": 1}, "n_folds must be at least 2"),
        ({"thresholds": {"ess_refus": 0.2}}, "unknown threshold 'ess_refus'.*ess_refuse"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(data, options, said):
    with pytest.raises(UserError, match=said):
        arena_cje.analyze(data / "logged.jsonl", **options)


def test_thresholds_move_verdicts_and_are_written_down(data):
    strict = arena_cje.analyze(data / "logged.jsonl", thresholds={"labels_refuse": 500})
    assert strict.verdicts["same"].level == "refuse"
    assert strict.document["metadata"]["thresholds"]["labels_refuse"] == 500
    assert strict.document["base_policy"]["estimate"] is None
    assert np.isnan(strict.estimates).all()
    assert strict.refused["base"]["estimate"] is not None


def test_fewer_labels_than_asked_for_is_said(data):
    result = arena_cje.analyze(data / "logged.jsonl", oracle_coverage=0.9)
    assert "150 oracle labels (50.0%), 270 were asked for" in repr(result)


def test_provenance_is_kept_as_it_is(data):
    made_from = {"code": "abc", "nested": {"a": [1, None]}}
    assert arena_cje.analyze(data / "logged.jsonl", provenance=made_from).document["provenance"] == made_from


def test_a_policy_that_says_nothing_the_base_says_has_no_number(tmp_path):
    logged, _, _ = simulate.draw(FAR, 60, 1)
    ratio = logged.log_ratio.copy()
    ratio[:, 1] = -np.inf
    write_logged(tmp_path / "x.jsonl", rows_of(replace(logged, log_ratio=ratio)))
    result = arena_cje.analyze(tmp_path / "x.jsonl", estimator="snips")
    assert result.refused["near"]["estimate"] is None
    assert [reason.code for reason in result.verdicts["near"].reasons][0] == "no_overlap"
    assert not np.isnan(result.estimates[0])
    assert "refused" in repr(result)


def test_the_table_stays_readable_with_many_and_long_names(tmp_path):
    targets = {f"a-policy-with-quite-a-long-name-and-a-number-{k}": Target(0.1 * k) for k in range(12)}
    logged, _, _ = simulate.draw(World(targets=targets, coverage=0.5), 120, 1)
    write_logged(tmp_path / "x.jsonl", rows_of(logged))
    lines = repr(arena_cje.analyze(tmp_path / "x.jsonl", estimator="snips")).splitlines()
    assert max(map(len, lines)) <= 116
    assert all(f"number-{k}" in "\n".join(lines[:32]) for k in range(12))
    assert lines[4].startswith("base (logged)")
