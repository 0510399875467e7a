"""A result is the same in memory, in its files and in its table; a refused estimate is published nowhere."""

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import arena_cje
from arena_cje import estimators, simulate
from arena_cje.data.user_data import read_user_data
from arena_cje.data.write import write_draws, write_logged
from arena_cje.errors import UserError
from arena_cje.evaluation.evaluate import Options, evaluate
from arena_cje.results.analyze import Settings, analyze_all, write
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


@pytest.mark.parametrize("draws", [True, False])
def test_estimators_that_run_together_give_the_bytes_that_each_gives_alone(data, tmp_path, draws):
    """Those that use fresh draws and those that do not, as the workflow's jobs run them, with a caution about weights."""
    names = [name for name in estimators.NAMES if estimators.needs_draws(name) == draws]
    fresh = data / "fresh" if draws else None
    cautions = {"near": [("support_exceeds_base", "its nucleus is wider", "caution")]}
    keys = {
        "covariates": [],
        "alpha": 0.1,
        "scale": None,
        "judge": None,
        "clip": 50.0,
        "seed": 3,
        "oracle_coverage": 0.4,
    }
    cautions_by_name = {name: cautions for name in names if estimators.needs_weights(name)}
    results = analyze_all(
        data / "logged.jsonl", fresh, dict(zip(names, names, strict=True)), Settings.of(keys), cautions=cautions_by_name
    )
    assert list(results) == names
    for name, together in results.items():
        alone = arena_cje.analyze(data / "logged.jsonl", fresh, name, cautions=cautions_by_name.get(name), **keys)
        for result, folder in ((together, tmp_path / "together"), (alone, tmp_path / "alone")):
            write(result, *(folder / f"{name}.{kind}" for kind in ("json", "csv", "influence.parquet")))
    files = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert len(files) == 3 * len(names)
    for file in files:
        assert (tmp_path / "together" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes(), file


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, arena_cje; assert not {'polars', 'numpy', 'scipy'} & set(sys.modules); arena_cje.analyze"
    home = {"PYTHONPATH": str(Path(arena_cje.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | home)


def test_an_unknown_attribute_of_the_package_raises_an_error_that_names_it():
    with pytest.raises(AttributeError, match="analyse"):
        arena_cje.analyse  # noqa: B018


def test_policies_come_in_declared_order(result):
    """Estimates are in the declared order of policies, not in alphabetical order (trap T39)."""
    assert result.policies == ("same", "near", "far")
    assert result.estimates.shape == result.standard_errors.shape == (3,)
    assert result.confidence_intervals.shape == (3, 2)
    assert list(result.verdicts) == ["base", "same", "near", "far"]
    assert result.influence.shape == (300, 3)


def test_analyze_gives_the_numbers_of_evaluate_on_the_same_data(data):
    logged, _, _ = simulate.draw(FAR, 300, 7)
    evaluation = evaluate("snips", logged, None, Options())
    result = arena_cje.analyze(data / "logged.jsonl", estimator="snips")
    assert result.summary("near")["estimate"] == pytest.approx(evaluation.estimates["near"].value, abs=1e-12)
    assert result.summary("base")["se"] == pytest.approx(evaluation.base.se, abs=1e-12)


def test_the_number_of_a_refused_policy_is_only_in_refused_fields(result):
    assert "far" in result.refused
    assert np.isnan(result.estimates[2]) and np.isnan(result.standard_errors[2])
    assert np.isnan(result.confidence_intervals[2]).all()
    refusal = result.refused["far"]
    assert 0 <= refusal["estimate"] <= 1 and refusal["se"] > 0 and refusal["reasons"]
    row = result.to_frame().row(2, named=True)
    assert [row[name] for name in ("estimate", "se", "ci_lower", "ci_upper")] == [None] * 4
    assert row["refused_estimate"] == refusal["estimate"]
    printed = next(line for line in result.details().splitlines() if line.startswith("far"))
    assert "refused" in printed and f"{refusal['estimate']:.3f}" not in printed
    assert all(reason in " ".join(result.details().split()) for reason in refusal["reasons"])
    notes = [line.split(":")[:2] for line in result.details().splitlines() if ": " in line]
    assert {level for level, policies in notes if "far" in policies} == {"refuse", "remedy"}


def test_intervals_contain_their_estimates(result):
    """The interval is about the estimate, not about zero (trap T10)."""
    published = ~np.isnan(result.estimates)
    low, high = result.confidence_intervals[published].T
    assert published[0]
    assert ((low < result.estimates[published]) & (result.estimates[published] < high)).all()


def test_the_standard_error_is_made_of_its_components(result):
    for policy in ("base", *result.policies):
        components = result.document["se_components"][policy]
        parts = np.array([components["sampling"], components["oracle"], components["cap_bias"]])
        assert np.sqrt(np.sum(parts**2)) == pytest.approx(result.summary(policy)["se"], rel=1e-12)
        spread = np.array(components["jackknife_deviations"])
        folds = components["n_jackknife"]
        assert np.sqrt((folds - 1) / folds * np.sum(spread**2)) == pytest.approx(components["oracle"], rel=1e-9)


def test_the_shift_of_an_estimate_by_capped_weights_is_in_the_result(data):
    result = arena_cje.analyze(data / "logged.jsonl", var_cap=0.01)
    plain = arena_cje.analyze(data / "logged.jsonl")
    shift = result.summary("near")["estimate"] - plain.summary("near")["estimate"]
    assert result.document["se_components"]["near"]["cap_bias"] == pytest.approx(shift, abs=1e-9)
    assert shift < -0.001
    assert [plain.document["se_components"][name]["cap_bias"] for name in ("base", "same", "near")] == [0, 0, 0]


def test_the_effective_labels_of_the_base_policy_are_shown(data, result):
    diagnostics = result.document["metadata"]["diagnostics"]["base"]
    assert 0.8 < diagnostics["label_share"] <= 1
    assert diagnostics["effective_labels"] == pytest.approx(120 * diagnostics["label_share"])
    assert result.to_frame().row(-1, named=True)["effective_labels"] == diagnostics["effective_labels"]
    line = next(line for line in result.details().splitlines() if line.startswith("base"))
    assert line.split()[-2:] == [f"{diagnostics['effective_labels']:.0f}", "ok"]


def test_the_rank_correlation_of_judge_and_oracle_is_always_in_the_table(result):
    calibration = result.document["calibration"]
    line = (
        f"Spearman correlation of judge and oracle: {calibration['spearman']:.2f} on {calibration['n_labels']} labels"
    )
    assert line in result.details().splitlines()


def test_loading_a_folder_loads_its_newest_result(data, tmp_path, monkeypatch, capsys):
    from arena_cje.__main__ import main

    for k, (name, coverage) in enumerate([("direct", "0.1"), ("ips", "0.5"), ("snips", "0.1")]):
        folder = tmp_path / "results" / f"coverage_{coverage}"
        folder.mkdir(parents=True, exist_ok=True)
        result = arena_cje.analyze(data / "logged.jsonl", data / "fresh", name)
        write(result, *(folder / f"{name}.{kind}" for kind in ("json", "csv", "influence.parquet")))
        os.utime(folder / f"{name}.json", (1000 + (k == 1), 1000 + (k == 1)))
    monkeypatch.chdir(tmp_path)
    assert arena_cje.load().name == arena_cje.load(tmp_path / "results").name == "ips"
    assert arena_cje.load("results/coverage_0.1").name == "snips"
    assert main(["show"]) == 0
    assert "ips: 300 logged responses" in capsys.readouterr().out
    monkeypatch.chdir(data)
    with pytest.raises(UserError, match="results: no results files in it; expected results/coverage_"):
        arena_cje.load()


def test_weights_are_described_after_and_before_capping(data):
    diagnostics = arena_cje.analyze(data / "logged.jsonl").document["metadata"]["diagnostics"]
    log_ratio = simulate.draw(FAR, 300, 7)[0].log_ratio[:, 1]
    weight = np.exp(log_ratio) / np.exp(log_ratio).mean()
    assert diagnostics["near"]["ess_raw"] == pytest.approx(1 / np.mean(weight**2))
    assert diagnostics["near"]["max_weight_raw"] == pytest.approx(weight.max())
    assert diagnostics["near"]["ess"] > diagnostics["near"]["ess_raw"]
    # Equal weights have no tail: an infinite index is known, unlike one that could not be computed.
    assert diagnostics["same"]["weights"]["raw"]["tail_index"] == "inf"


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


def test_fresh_draws_of_the_base_policy_change_nothing(data):
    fresh = {policy: data / "fresh" / f"{policy}.jsonl" for policy in ("same", "near", "far")}
    with_base = fresh | {"base": data / "fresh" / "same.jsonl"}
    one, other = (arena_cje.analyze(data / "logged.jsonl", draws, "direct") for draws in (fresh, with_base))
    assert one.to_json() == other.to_json()


def test_labels_are_counted_as_masked(result):
    metadata = result.document["metadata"]
    assert (metadata["n_oracle"], metadata["n_labels_wanted"], metadata["n_labels_found"]) == (120, 120, 150)
    assert metadata["oracle_coverage"] == 0.4
    assert result.document["calibration"]["n_labels"] == 120


def test_a_result_read_from_its_files_equals_the_one_written(result, tmp_path):
    write(result, tmp_path / "e.json", tmp_path / "e.csv", tmp_path / "e.influence.parquet")
    back = arena_cje.load(tmp_path / "e.json")
    assert back.to_json() == result.to_json() == (tmp_path / "e.json").read_text()
    assert back.to_frame().equals(result.to_frame())
    assert back.details() == result.details()
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


def test_data_prepared_at_a_coverage_give_the_influence_of_analyze_at_that_coverage(data, tmp_path):
    rows, _, _, summary = read_user_data(data / "logged.jsonl", None, 0.3, 42, 0.0)
    write_logged(tmp_path / "cje_dataset.jsonl", rows)
    of_dataset = arena_cje.analyze(tmp_path / "cje_dataset.jsonl")
    of_source = arena_cje.analyze(data / "logged.jsonl", oracle_coverage=0.3)
    assert summary["n_oracle"] == 90
    np.testing.assert_array_equal(of_dataset.influence, of_source.influence)
    np.testing.assert_array_equal(of_dataset.estimates, of_source.estimates)


def test_data_frames_give_the_same_result_as_files(data):
    fresh = {p: pl.read_ndjson(data / "fresh" / f"{p}.jsonl") for p in ("same", "near", "far")}
    of_frame = arena_cje.analyze(pl.read_ndjson(data / "logged.jsonl"), fresh, "direct")
    of_file = arena_cje.analyze(data / "logged.jsonl", data / "fresh", "direct")
    assert of_frame.to_json() == of_file.to_json()


def test_full_labels_and_equal_policies_give_the_mean_label(tmp_path):
    """With all labels (trap T45) and equal log probabilities (trap T23) the value is exactly the mean label."""
    logged, _, _ = simulate.draw(replace(FAR, coverage=1.0), 80, 3)
    write_logged(tmp_path / "x.jsonl", rows_of(logged))
    for name in ("ips", "snips", "raw-ips", "calibrated-ips"):
        if name not in estimators.NAMES:
            continue
        result = arena_cje.analyze(tmp_path / "x.jsonl", estimator=name)
        assert result.estimates[0] == pytest.approx(logged.oracle_label.mean(), abs=1e-12)
        assert result.standard_errors[0] == pytest.approx(logged.oracle_label.std(ddof=1) / np.sqrt(80), rel=1e-9)


def test_without_log_probabilities_the_target_policies_are_those_of_the_fresh_draws(data, tmp_path):
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
    ("options", "message"),
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
def test_wrong_arguments_of_analyze_are_refused_with_one_sentence(data, options, message):
    with pytest.raises(UserError, match=message):
        arena_cje.analyze(data / "logged.jsonl", **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "var_capp",
            r"no option 'var_capp' \(did you mean 'var_cap'\?\); the options are logged, .*margin.* seed, n_folds, .*n_bootstrap",
        ),
        ("oracle_coverag", r"no option 'oracle_coverag' \(did you mean 'oracle_coverage'\?\)"),
        ("options", r"no option 'options'"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_name_or_the_list(data, name, message):
    with pytest.raises(TypeError, match=message):
        arena_cje.analyze(data / "logged.jsonl", **{name: 1})


def test_every_option_is_a_keyword_of_analyze(data):
    options = Options(
        seed=7,
        n_folds=3,
        jackknife_folds=4,
        rewards="judge",
        calibration="auto",
        covariates=("response_length",),
        weights="raw",
        correction="none",
        label_term=True,
        clip=5.0,
        var_cap=0.5,
        ess_floor=0.4,
        n_bootstrap=10,
    )
    assert {field.name for field in fields(Options) if getattr(options, field.name) == field.default} == {"inference"}
    keywords = asdict(options) | {"covariates": list(options.covariates)}
    assert arena_cje.analyze(data / "logged.jsonl", None, "raw-ips", **keywords).options == options


def test_every_option_is_described():
    for field in fields(Options):
        assert f"\n    {field.name}: " in Options.__doc__


def test_thresholds_change_verdicts_and_are_in_the_document(data):
    strict = arena_cje.analyze(data / "logged.jsonl", thresholds={"labels_refuse": 500})
    assert strict.verdicts["same"].level == "refuse"
    assert strict.document["metadata"]["thresholds"]["labels_refuse"] == 500
    assert strict.document["base_policy"]["estimate"] is None
    assert np.isnan(strict.estimates).all()
    assert strict.refused["base"]["estimate"] is not None


def test_fewer_labels_than_requested_are_noted(data):
    result = arena_cje.analyze(data / "logged.jsonl", oracle_coverage=0.9)
    assert "150 oracle labels (50.0 %); 270 labels were requested" in result.details()


def test_provenance_is_in_the_document_unchanged(data):
    provenance = {"code": "abc", "nested": {"a": [1, None]}}
    assert arena_cje.analyze(data / "logged.jsonl", provenance=provenance).document["provenance"] == provenance


def test_a_target_policy_whose_weights_are_all_zero_is_refused_without_an_estimate(tmp_path):
    logged, _, _ = simulate.draw(FAR, 60, 1)
    ratio = logged.log_ratio.copy()
    ratio[:, 1] = -np.inf
    write_logged(tmp_path / "x.jsonl", rows_of(replace(logged, log_ratio=ratio)))
    result = arena_cje.analyze(tmp_path / "x.jsonl", estimator="snips")
    assert result.refused["near"]["estimate"] is None
    assert [reason.code for reason in result.verdicts["near"].reasons][0] == "no_overlap"
    assert not np.isnan(result.estimates[0])
    assert "refused" in result.details()


def test_the_table_stays_readable_with_many_and_long_names(tmp_path):
    targets = {f"a-policy-with-quite-a-long-name-and-a-number-{k}": Target(0.1 * k) for k in range(12)}
    logged, _, _ = simulate.draw(World(targets=targets, coverage=0.5), 120, 1)
    write_logged(tmp_path / "x.jsonl", rows_of(logged))
    result = arena_cje.analyze(tmp_path / "x.jsonl", estimator="snips")
    lines = result.details().splitlines()
    assert max(map(len, lines)) <= 116
    assert all(f"number-{k}" in "\n".join(lines[:40]) for k in range(12))
    heading = next(k for k, line in enumerate(lines) if line.startswith("snips: "))
    assert " ".join(" ".join(lines[:heading]).split()) == result.decision["headline"]
    assert lines[heading + 4].startswith("base (logged)")


def test_each_table_has_the_whole_of_a_name_that_is_longer_than_its_column(tmp_path):
    targets = {f"team-a/a-policy-with-quite-a-long-name-and-number-{k}": Target(0.1 * k) for k in range(2)}
    logged, _, _ = simulate.draw(World(targets=targets, coverage=0.5), 120, 1)
    write_logged(tmp_path / "x.jsonl", rows_of(logged))
    result = arena_cje.analyze(tmp_path / "x.jsonl", estimator="snips")
    details, short = result.details(), str(result)
    _, _, differences = details.partition("\nDifference to base")
    for table in (details, differences, short):
        lines = table.splitlines()
        names = {first[:30].strip() + second.strip() for first, second in itertools.pairwise(lines)}
        assert set(targets) <= names
        assert "..." not in table


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path, rows):
    """Write rows without a check; the path of their file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbers_with_paths(value, at=()):
    """Every number of a document with the names that lead to it."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from numbers_with_paths(part, (*at, name))
    elif isinstance(value, list):
        for k, part in enumerate(value):
            yield from numbers_with_paths(part, (*at, k))
    elif isinstance(value, float):
        yield at, value


@pytest.mark.parametrize("name", ["snips", "calibrated-ips", "direct", "dr-cpo"])
def test_a_refused_policy_is_never_recommended_even_with_the_highest_value(name, tmp_path):
    """The number of a refused policy stands under `refused` and nowhere else (trap T22)."""
    world = World(targets={"near": Target(0.2, 0.2), "far": Target(4.0, 3.0)}, coverage=0.5)
    logged, draws, _ = simulate.draw(world, 300, 7)
    write_logged(tmp_path / "logged.jsonl", rows_of(logged))
    fresh = {
        p: pl.DataFrame({"prompt_id": logged.prompt_id, "judge_score": d.judge_score[:, 0]}) for p, d in draws.items()
    }
    result = arena_cje.analyze(tmp_path / "logged.jsonl", fresh, name, thresholds={"label_share_refuse": 0.4})
    refusal = result.refused["far"]
    assert refusal["estimate"] > result.summary("near")["estimate"]
    assert result.best == "near"
    assert result.document["best_policy"] == {"policy": "near", "refused_but_higher": ["far"]}
    locations = [at for at, value in numbers_with_paths(result.document) if value == refusal["estimate"]]
    assert locations == [("refused", "far", "estimate")]
    assert [
        at
        for at, value in numbers_with_paths(result.document)
        if at[-2:-1] == ("confidence_interval",) and value in refusal["confidence_interval"]
    ] == [
        ("refused", "far", "confidence_interval", 0),
        ("refused", "far", "confidence_interval", 1),
    ]
    write(result, tmp_path / "e.json", tmp_path / "e.csv", tmp_path / "e.influence.parquet")
    table = pl.read_csv(tmp_path / "e.csv")
    for frame in (table, result.to_frame()):
        row = frame.row(by_predicate=pl.col("policy") == "far", named=True)
        assert [key for key, value in row.items() if value == pytest.approx(refusal["estimate"], abs=1e-6)] == [
            "refused_estimate"
        ]
    assert f"{refusal['estimate']:.3f}" not in result.details()
    differences = result.comparisons()
    of_far = differences.filter((pl.col("first") == "far") | (pl.col("second") == "far"))
    assert of_far.height == 2 and of_far["difference"].is_null().all()
    assert result.document["differences_to_base"]["far"]["difference"] is None


def test_verdict_document_table_and_console_show_the_same_ess(tmp_path):
    """A quarter of the rows effective is a caution in verdict, document, table and console (trap T21)."""
    n = 400
    logged, _, _ = simulate.draw(World(targets={"near": Target()}, coverage=0.5), n, 1)
    heavy = np.arange(n) % 25 == 0
    ratio = np.where(heavy, np.log(12.5), np.log(0.5)) + 0.05 * np.random.default_rng(0).standard_normal(n)
    ratio = ratio - np.log(np.exp(ratio).mean())
    write_logged(tmp_path / "x.jsonl", rows_of(replace(logged, log_ratio=ratio[:, None])))
    weight = np.exp(ratio) / np.exp(ratio).mean()
    share = 1 / np.mean(weight**2)
    assert 0.1 < share < 0.3
    result = arena_cje.analyze(tmp_path / "x.jsonl", estimator="snips")
    reason = next(reason for reason in result.verdicts["near"].reasons if reason.code == "low_ess")
    assert (reason.level, result.verdicts["near"].level) == ("caution", "caution")
    assert f"raw ESS {100 * share:.1f} % (caution below 30 %)" in reason.sentence
    diagnosed = result.document["metadata"]["diagnostics"]["near"]
    row = result.to_frame().row(0, named=True)
    figures = (diagnosed["ess_raw"], diagnosed["weights"]["raw"]["ess_share"], row["ess_raw"], row["ess"])
    assert figures == pytest.approx((share,) * 4)
    assert (diagnosed["level"], row["status"]) == ("caution", "caution")
    printed = next(line for line in result.details().splitlines() if line.startswith("near"))
    assert f"{share:.3f}" in printed and printed.endswith("caution")


def test_judge_scores_outside_the_labelled_range_are_refused_in_the_diagnostics(data):
    """A target whose judge scores lie outside the range of the labelled ones is refused (trap T26)."""
    draws = pl.DataFrame({"prompt_id": [f"prompt-{k}" for k in range(300)], "judge_score": [1.0] * 300})
    result = arena_cje.analyze(data / "logged.jsonl", dict.fromkeys(("same", "near", "far"), draws), "direct")
    card = result.document["metadata"]["diagnostics"]["near"]["boundary"]
    assert (card["status"], card["out_of_range"]) == ("refuse", pytest.approx(1))
    assert result.verdicts["near"].level == "refuse"


def test_the_largest_weight_is_reported_before_and_after_clipping(data):
    """After rescaling a weight may exceed the clip, and the document has the largest before and after it (trap T47)."""
    result = arena_cje.analyze(data / "logged.jsonl", estimator="raw-ips", clip=1.5)
    diagnostics = result.document["metadata"]["diagnostics"]["near"]
    log_ratio = simulate.draw(FAR, 300, 7)[0].log_ratio[:, 1]
    weight = np.exp(log_ratio) / np.exp(log_ratio).mean()
    cut = np.minimum(weight, 1.5)
    assert diagnostics["max_weight_raw"] == pytest.approx(weight.max())
    assert diagnostics["max_weight"] == pytest.approx(1.5 / cut.mean()) and diagnostics["max_weight"] > 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_policy_logprob": float("nan")}, "base_policy_logprob is NaN"),
        ({"base_policy_logprob": float("inf")}, "base_policy_logprob is inf"),
        ({"base_policy_logprob": 0.5}, "base_policy_logprob is 0.5"),
        ({"base_policy_logprob": float("-inf")}, "base_policy_logprob is -inf"),
        ({"target_policy_logprobs": {"same": float("nan"), "near": -1.0, "far": -1.0}}, "same is NaN"),
        ({"target_policy_logprobs": {"same": -1.0, "near": 2.0, "far": -1.0}}, "near is 2.0"),
    ],
)
def test_impossible_log_probabilities_are_refused_with_their_row(data, changes, message):
    """Impossible log probabilities are an error that names the row (trap T18)."""
    rows = lines_of(data / "logged.jsonl")
    frame = pl.DataFrame(rows[:4] + [rows[4] | changes] + rows[5:], infer_schema_length=None)
    with pytest.raises(UserError, match=f"row 4: .*{message}"):
        arena_cje.analyze(frame, estimator="snips")


def test_a_target_log_probability_of_minus_infinity_is_a_weight_of_zero(data):
    """A log probability of -inf under a target is a weight of zero, and the row stays (trap T18)."""
    rows = lines_of(data / "logged.jsonl")
    rows[0]["target_policy_logprobs"]["near"] = float("-inf")
    result = arena_cje.analyze(pl.DataFrame(rows, infer_schema_length=None), estimator="snips")
    assert result.document["n_used"]["near"] == 300
    assert result.document["metadata"]["diagnostics"]["near"]["weights"]["raw"]["n_zero"] == 1


def test_prompt_ids_zero_and_empty_string_are_joined_to_their_fresh_draws(tmp_path):
    """Ids that are false in Python are ids (trap T19)."""
    logged, draws, _ = simulate.draw(World(targets={"near": Target(0.2)}, coverage=1.0), 30, 1)
    names = [0, "", *range(1, 29)]
    rows = [row | {"prompt_id": name} for row, name in zip(rows_of(logged), names, strict=True)]
    scores = draws["near"].judge_score[:, 0].tolist()
    (tmp_path / "fresh").mkdir()
    write_rows(
        tmp_path / "fresh" / "near.jsonl",
        [{"prompt_id": name, "judge_score": s} for name, s in reversed(list(zip(names, scores, strict=True)))],
    )
    result = arena_cje.analyze(write_rows(tmp_path / "x.jsonl", rows), tmp_path / "fresh", "direct")
    assert result.prompt_id.tolist()[:3] == ["0", "", "1"]
    assert result.document["n_used"]["near"] == 30
    expected = evaluate("direct", replace(logged, prompt_id=np.array([str(n) for n in names])), draws, Options())
    assert result.summary("near")["estimate"] == pytest.approx(expected.estimates["near"].value, abs=1e-12)


@pytest.mark.parametrize("place", ["top", "metadata", "both"])
def test_labels_are_masked_in_the_column_and_in_the_metadata(data, tmp_path, place):
    """Each coverage uses exactly the labels of its mask, so that estimates differ (trap T24)."""
    rows = lines_of(data / "logged.jsonl")
    for row in rows:
        label = row["oracle_label"]
        if place != "top" and label is not None:
            row["metadata"] = {"oracle_label": label}
        if place == "metadata":
            del row["oracle_label"]
    path = write_rows(tmp_path / "x.jsonl", rows)
    results = {share: arena_cje.analyze(path, estimator="snips", oracle_coverage=share) for share in (0.1, 0.5)}
    for share, result in results.items():
        assert (
            result.document["metadata"]["n_oracle"] == result.document["calibration"]["n_labels"] == round(300 * share)
        )
    assert results[0.1].estimates[0] != results[0.5].estimates[0]
    plain = arena_cje.analyze(data / "logged.jsonl", estimator="snips", oracle_coverage=0.1)
    assert results[0.1].estimates[0] == plain.estimates[0]


def test_labels_of_several_policies_on_one_prompt_are_separate_calibration_pairs(data):
    """Calibration pairs are identified by response, not by prompt (trap T15)."""
    pairs = [
        {"prompt_id": "prompt-0", "policy": policy, "judge_score": 0.1 * k, "oracle_label": 0.1 * k}
        for k, policy in enumerate(("near", "far", "other", "another"))
    ]
    plain = arena_cje.analyze(data / "logged.jsonl", estimator="snips")
    more = arena_cje.analyze(data / "logged.jsonl", estimator="snips", calibration_data=pl.DataFrame(pairs))
    assert more.document["calibration"]["n_labels"] == plain.document["calibration"]["n_labels"] + 4


def test_calibration_data_replace_no_logged_row_and_no_fresh_draw(data, tmp_path):
    """Calibration data serve calibration alone, and replace no logged row or draw (trap T11)."""
    logged, _, _ = simulate.draw(World(coverage=1.0), 500, 3)
    pairs = pl.DataFrame(
        {
            "prompt_id": [f"more-{k}" for k in range(500)],
            "judge_score": logged.judge_score,
            "oracle_label": logged.oracle_label,
        }
    )
    result = arena_cje.analyze(data / "logged.jsonl", data / "fresh", "dr-cpo", calibration_data=pairs)
    assert result.influence.shape == (300, 3) and len(result.prompt_id) == 300
    summaries = [result.summary(policy)["estimate"] for policy in result.policies]
    assert len(set(summaries)) == 3
    assert result.document["calibration"]["n_labels"] == 150 + 500
    assert result.document["metadata"]["n_oracle"] == 150


@pytest.mark.parametrize(
    ("fresh", "estimator", "message"),
    [
        ("gone", "direct", "no such folder"),
        ("gone", "dr-cpo", "no such folder"),
        ("gone", "snips", "no such folder"),
        (None, "dr-cpo", "'dr-cpo' needs fresh draws of every target policy"),
    ],
)
def test_missing_fresh_draws_are_refused_for_every_estimator_that_names_or_needs_them(
    data, tmp_path, fresh, estimator, message
):
    """No other estimator is used instead, and no path among the arguments is ignored (trap T28)."""
    with pytest.raises(UserError, match=message):
        arena_cje.analyze(data / "logged.jsonl", None if fresh is None else tmp_path / fresh, estimator)


def test_fresh_draws_change_the_estimate_exactly_where_the_estimator_needs_draws(data):
    """Fresh draws are not replaced by logged responses (trap T28)."""
    moved = {p: pl.read_ndjson(data / "fresh" / f"{p}.jsonl") for p in ("same", "near", "far")}
    moved["near"] = moved["near"].with_columns(pl.col("judge_score") * 0.9)
    for name in estimators.NAMES:
        one = arena_cje.analyze(data / "logged.jsonl", data / "fresh", name).summary("near")["estimate"]
        other = arena_cje.analyze(data / "logged.jsonl", moved, name).summary("near")["estimate"]
        assert (one != other) == estimators.needs_draws(name)


def test_a_result_has_the_ids_of_the_file_and_an_error_names_the_line(data, tmp_path):
    """Ids of a result are those of the file, and an error names the line of the wrong value (trap T36)."""
    rows = [row | {"prompt_id": f"id {k}"} for k, row in enumerate(lines_of(data / "logged.jsonl"))]
    result = arena_cje.analyze(write_rows(tmp_path / "x.jsonl", rows), estimator="snips")
    assert result.prompt_id.tolist() == [row["prompt_id"] for row in rows]
    with pytest.raises(UserError, match=r"y\.jsonl:3: judge_score is '0\.5'"):
        arena_cje.analyze(
            write_rows(tmp_path / "y.jsonl", [*rows[:2], rows[2] | {"judge_score": "0.5"}]), estimator="snips"
        )


def test_a_declared_scale_gives_the_same_result_and_an_undeclared_one_is_refused(data, tmp_path):
    """A scale that is declared is mapped to [0, 1]; one that is not is refused (trap T37)."""
    rows = lines_of(data / "logged.jsonl")
    for row in rows:
        row["judge_score"] = 100 * row["judge_score"]
        row["oracle_label"] = None if row["oracle_label"] is None else 100 * row["oracle_label"]
    path = write_rows(tmp_path / "x.jsonl", rows)
    fresh = {
        p: pl.read_ndjson(data / "fresh" / f"{p}.jsonl").with_columns(pl.col("judge_score") * 100) for p in FAR.targets
    }
    for name in ("snips", "direct", "stacked-dr"):
        one = arena_cje.analyze(data / "logged.jsonl", data / "fresh", name)
        other = arena_cje.analyze(path, fresh, name, scale=(0, 100))
        for policy in one.policies:
            assert list(other.summary(policy).values()) == pytest.approx(list(one.summary(policy).values()), abs=1e-6)
    with pytest.raises(UserError, match="judge_score is .*set the ranges of your data: `judge_scale`"):
        arena_cje.analyze(path, estimator="snips")


@pytest.mark.parametrize("where", ["logged", "fresh", "calibration_data"])
def test_a_label_that_is_nan_is_refused(data, where):
    """Null means unlabelled; NaN has no meaning (trap T49)."""
    label = [float("nan")] + [0.5] * 299
    rows = pl.DataFrame(
        {"prompt_id": [f"prompt-{k}" for k in range(300)], "judge_score": [0.5] * 300, "oracle_label": label}
    )
    logged = pl.DataFrame(lines_of(data / "logged.jsonl"), infer_schema_length=None)
    arguments = {"logged": logged}
    if where == "logged":
        arguments["logged"] = logged.with_columns(pl.Series("oracle_label", label))
    elif where == "fresh":
        arguments["fresh_draws"] = dict.fromkeys(FAR.targets, rows)
    else:
        arguments["calibration_data"] = rows
    with pytest.raises(UserError, match="row 0: oracle_label is NaN"):
        arena_cje.analyze(**arguments, estimator="snips")


def test_without_oracle_labels_judge_rewards_are_refused_as_uncalibrated(data):
    """Without a single label the estimate is uncalibrated, and refused (trap T29)."""
    rows = [row | {"oracle_label": None} for row in lines_of(data / "logged.jsonl")]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    result = arena_cje.analyze(frame, data / "fresh", "direct", rewards="judge")
    scores = pl.read_ndjson(data / "fresh" / "near.jsonl")["judge_score"]
    assert result.refused["near"]["estimate"] == pytest.approx(scores.mean())
    assert result.document["calibration"]["mode"] == "none"
    levels = {reason.code: reason.level for reason in result.verdicts["near"].reasons}
    assert levels["uncalibrated_rewards"] == "refuse"
    assert "judge scores are used without calibration" in " ".join(result.details().split())
    with pytest.raises(UserError, match="no row has an `oracle_label`"):
        arena_cje.analyze(frame, data / "fresh", "direct")


def test_a_target_without_labels_has_the_reason_transport_unverified(data):
    """The verdict of a target without labels of its own has a reason for it (trap T50)."""
    for name in ("direct", "dr-cpo", "snips"):
        result = arena_cje.analyze(data / "logged.jsonl", data / "fresh", name)
        assert "transport_unverified" in {reason.code for reason in result.verdicts["near"].reasons}


def test_ten_thousand_prompts_are_loaded_joined_and_estimated_within_five_seconds():
    """Loading, joining and a doubly robust estimate of 10 000 prompts take seconds (trap T51)."""
    n = 10_000
    logged, draws, _ = simulate.draw(World(targets={"near": Target(0.2, 0.2)}, coverage=0.1), n, 0)
    rows = pl.DataFrame(
        {
            "prompt_id": logged.prompt_id,
            "response": ["y"] * n,
            "base_policy_logprob": [-60.0] * n,
            "target_policy_logprobs": [{"near": float(r)} for r in logged.log_ratio[:, 0] - 60],
            "judge_score": logged.judge_score,
            "oracle_label": [None if np.isnan(y) else float(y) for y in logged.oracle_label],
        }
    )
    fresh = {
        "near": pl.DataFrame({"prompt_id": logged.prompt_id[::-1], "judge_score": draws["near"].judge_score[::-1, 0]})
    }
    began = time.process_time()
    result = arena_cje.analyze(rows, fresh, "dr-cpo")
    assert time.process_time() - began < 5
    assert result.document["n_used"]["near"] == n


@pytest.mark.parametrize("method", ["summary", "estimate", "remedies"])
def test_a_policy_that_is_not_in_the_result_is_refused_with_the_nearest(data, method):
    result = arena_cje.analyze(data / "logged.jsonl", estimator="snips")
    with pytest.raises(
        UserError,
        match=r"snips: there is no policy 'nera' in this result \(did you mean 'near'\?\); its policies: base",
    ):
        getattr(result, method)("nera")


def test_differences_are_the_same_after_a_result_is_read_from_its_files(data, tmp_path):
    """Influence, jackknife and bootstrap values are read back, so that a difference equals that of the estimates themselves."""
    logged, draws, _ = simulate.draw(FAR, 300, 7)
    for name, options in (("dr-cpo", {}), ("direct", {"inference": "bootstrap", "n_bootstrap": 50})):
        result = arena_cje.analyze(data / "logged.jsonl", data / "fresh", name, **options)
        evaluation = evaluate(name, logged, draws, Options(**options))
        expected = evaluation.estimates["near"] - evaluation.base
        write(result, tmp_path / "e.json", tmp_path / "e.csv", tmp_path / "e.influence.parquet")
        for one in (result, arena_cje.load(tmp_path / "e.json")):
            contrast = one.estimate("near") - one.estimate("base")
            assert (contrast.value, contrast.se) == pytest.approx((expected.value, expected.se), rel=1e-9)
            assert contrast.interval() == pytest.approx(expected.interval(), rel=1e-9)


def test_typicality_does_not_depend_on_the_number_of_tokens(data):
    """Responses of twice the tokens at twice the surprisal are as typical as they were (trap T25)."""
    rows, rng = lines_of(data / "logged.jsonl"), np.random.default_rng(0)
    longer = []
    for row in rows:
        length, own = int(rng.integers(20, 200)), row["target_policy_logprobs"]
        apart = own["near"] - row["base_policy_logprob"]
        target = -length * rng.gamma(2.0, 0.3)
        single = {"metadata": {"response_token_count": length}, "target_policy_logprobs": own | {"near": target}}
        row |= single | {"base_policy_logprob": min(target - apart, 0.0)}
        double = {
            "metadata": {"response_token_count": 2 * length},
            "target_policy_logprobs": own | {"near": 2 * target},
        }
        longer.append(row | double | {"base_policy_logprob": 2 * target - (target - row["base_policy_logprob"])})
    one, other = (
        arena_cje.analyze(pl.DataFrame(of, infer_schema_length=None), estimator="snips").document["metadata"]
        for of in (rows, longer)
    )
    weights = [of["diagnostics"]["near"]["weights"] for of in (one, other)]
    assert weights[0]["raw"]["ess_share"] == pytest.approx(weights[1]["raw"]["ess_share"])
    assert 0 < weights[0]["ttc"] < 1
    assert weights[0]["ttc"] == pytest.approx(weights[1]["ttc"])
    assert weights[0]["bound"] == pytest.approx(weights[1]["bound"])


def test_bootstrap_deviations_of_a_refused_policy_do_not_reveal_its_estimate(data):
    all_refused = {"labels_refuse": 10**6, "labels_caution": 10**6}
    result = arena_cje.analyze(
        data / "logged.jsonl", data / "fresh", "direct", inference="bootstrap", n_bootstrap=60, thresholds=all_refused
    )
    assert set(result.refused) == {result.base_policy, *result.policies}
    for policy in result.policies:
        deviations = np.array(result.document["se_components"][policy]["bootstrap_deviations"])
        assert abs(deviations.mean()) < 0.05 < result.refused[policy]["estimate"]


def test_details_are_printed_with_an_infinite_clip_and_threshold(data):
    infinite = float("inf")
    result = arena_cje.analyze(
        data / "logged.jsonl", None, "raw-ips", clip=infinite, thresholds={"cv_caution": infinite}
    )
    assert "Importance weights" in result.details() and result.diagnose_weights()
