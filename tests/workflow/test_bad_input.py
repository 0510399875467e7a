"""A user's mistakes in real runs: each ends with one sentence and a failing exit status."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import foreign_files
from workflow_run import CONFIG, ROOT, Run, write_prompts


@pytest.fixture
def run(tmp_path, tiny_model) -> Run:
    (tmp_path / "tiny.gguf").symlink_to(tiny_model)
    write_prompts(tmp_path / "prompts.jsonl", 24)
    (tmp_path / "other.txt").write_text("Answer with other words.")
    return Run(tmp_path, copy.deepcopy(CONFIG))


def expect_refusal(run: Run, sentence: str, *arguments: str) -> None:
    """Snakemake fails before any job, and its last line is the sentence."""
    output = run.snakemake("-n", *arguments, ok=False)
    last = output.strip().splitlines()[-1]
    assert last.startswith("ERROR ") and sentence in last, output
    assert "Traceback" not in output


def expect_failing_job(run: Run, sentence: str, target: str) -> None:
    """The job fails with one line ERROR on the terminal and in its log."""
    output = run.snakemake(target, ok=False)
    lines = [line for line in output.splitlines() if " ERROR " in line and sentence in line]
    assert lines, output
    assert "Traceback" not in output
    assert any(sentence in path.read_text() for path in (run.directory / "logs").rglob("*.log"))


def test_an_unknown_key_is_refused_with_the_nearest_key(run):
    run.config["n_promts"] = 3
    expect_refusal(run, "config: unknown key `n_promts` (did you mean 'n_prompts'?)")


def test_an_unknown_base_policy_is_refused_with_the_nearest_policy(run):
    run.config["base_policy"] = "bse"
    expect_refusal(run, "base policy 'bse' is not under `policies` (did you mean 'base'?)")


def test_an_unknown_estimator_is_refused_with_the_nearest_estimator(run):
    expect_refusal(run, "unknown estimator 'snip' (did you mean 'snips'?)", "results/coverage_0.5/snip.json")


def test_a_coverage_with_a_trailing_zero_is_refused_with_its_canonical_form(run):
    expect_refusal(run, "write coverage_0.1", "results/coverage_0.10/snips.json")


@pytest.mark.parametrize("coverage", ["0", "1.5", "-0.1"])
def test_a_coverage_outside_its_range_is_refused(run, coverage):
    expect_refusal(run, "(0, 1]", f"results/coverage_{coverage}/snips.json")


def test_a_missing_model_file_is_refused(run):
    (run.directory / "tiny.gguf").unlink()
    expect_refusal(run, "model file tiny.gguf does not exist")


def test_a_model_file_without_a_recipe_is_refused_with_the_nearest_recipe(run):
    run.config["models"]["smollm2"] = {"file": "SmolLM2-135M-Instruct.F61.gguf"}
    expect_refusal(run, "did you mean 'SmolLM2-135M-Instruct.F16.gguf'")


def test_a_model_file_with_another_hash_than_configured_fails_in_the_job(run):
    run.config["models"]["smollm2"]["sha256"] = "0" * 64
    expect_failing_job(run, f"expected {'0' * 64}", "results/models/smollm2.json")


def test_a_damaged_model_file_fails_in_the_job(run, tiny_model):
    (run.directory / "tiny.gguf").unlink()
    (run.directory / "tiny.gguf").write_bytes(tiny_model.read_bytes()[:5000])
    expect_failing_job(run, "model file tiny.gguf cannot be loaded", "results/models/smollm2.json")


def test_a_missing_system_prompt_file_is_refused(run):
    (run.directory / "other.txt").unlink()
    expect_refusal(run, "config: no file 'other.txt' in")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"prompt_id": "x", "prompt": ""}', "prompts.jsonl:25: prompt is empty"),
        ('{"prompt_id": "x"}', "prompts.jsonl:25: prompt is missing"),
        ('{"prompt_id": "x", "prompt":', "prompts.jsonl:25: not valid JSON"),
        ('{"prompt_id": "q3", "prompt": "Again?"}', "prompts.jsonl:25: prompt_id 'q3' appears again"),
        ('{"prompt_id": "x", "prompt": "Hm?", "reference": {"anyof": ["a"]}}', "(did you mean 'any_of'?)"),
    ],
)
def test_a_bad_prompt_is_refused_with_file_and_line(run, line, sentence):
    with open(run.directory / "prompts.jsonl", "a") as file:
        file.write(line + "\n")
    run.config["n_prompts"] = 25 if "reference" in line else 24
    expect_refusal(run, sentence)


def test_n_prompts_above_the_number_of_prompts_is_refused(run):
    run.config["n_prompts"] = 30
    expect_refusal(run, "n_prompts is 30, but prompts.jsonl has 24 prompts")


def test_a_file_in_place_of_the_results_folder_is_refused(run):
    (run.directory / "results").write_text("in the way")
    expect_refusal(run, "is a file, but results are written to a folder with this name")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up rights needs root; others are tested by the file in the way")
def test_a_results_folder_without_write_permission_is_refused(tmp_path):
    (tmp_path / "results").mkdir(mode=0o555)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from arena_cje.config.targets import check_writable\n"
        "from arena_cje.errors import UserError\n"
        "os.setuid(65534)\n"
        "try: check_writable(Path(sys.argv[1]))\n"
        "except UserError as error: print(error)\n"
    )
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o777 == 0o700:
            os.chmod(parent, 0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    command = [sys.executable, "-c", code, str(tmp_path / "results")]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "is not writable" in process.stdout, process.stderr


def test_a_prompt_longer_than_the_context_has_the_status_too_long_and_is_left_out(run):
    rows = [json.loads(line) for line in (run.directory / "prompts.jsonl").read_text().splitlines()]
    rows[5]["prompt"] = "long " * 400
    (run.directory / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.snakemake("results/coverage_0.5/snips.json", "results/coverage_0.5/direct.json")
    responses = [json.loads(line) for line in run.path("responses/base.jsonl").read_text().splitlines()]
    assert [row["prompt_id"] for row in responses if row["status"] == "too_long"] == ["q5"]
    summary = json.loads(run.path("coverage_0.5/summary.json").read_text())
    assert summary["dropped"] == {"response too_long": 1}
    assert summary["n_rows"] == 23
    assert json.loads(run.path("coverage_0.5/direct.json").read_text())["metadata"]["n_samples"] == 23


def test_a_response_too_long_for_one_context_is_left_out_for_that_policy_alone(run):
    rows = [json.loads(line) for line in (run.directory / "prompts.jsonl").read_text().splitlines()]
    rows[5]["prompt"] = "x" * 300
    (run.directory / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run.directory / "other.txt").write_text("y" * 200)
    run.snakemake("results/coverage_0.5/snips.json")
    summary = json.loads(run.path("coverage_0.5/summary.json").read_text())
    assert (summary["n_rows"], summary["dropped"]) == (24, {})
    assert summary["not_scored"] == {"other": 1, "cool": 0, "clone": 0}
    result = json.loads(run.path("coverage_0.5/snips.json").read_text())
    assert result["n_used"] == {"base": 24, "other": 23, "cool": 24, "clone": 24}
    codes = [reason["code"] for reason in result["verdicts"]["other"]["reasons"]]
    assert "rows_left_out" in codes


def test_a_rubric_file_with_wrong_keys_is_refused(run):
    (run.directory / "mine.yaml").write_text("kind: likelihood\ntemprature: 1\n")
    run.config["judge"] = {"model": "smollm2", "rubric": "mine.yaml"}
    expect_refusal(run, "mine.yaml: not a rubric")


LOGGED = {
    "prompt_id": "a",
    "prompt": "Hello?",
    "response": "Hello.",
    "base_policy_logprob": -3.0,
    "target_policy_logprobs": {"clone": -3.0},
    "judge_score": 0.5,
    "oracle_label": 1.0,
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ('"base_policy_logprob": NaN', "mine.jsonl:2"),
        ('"base_policy_logprob": 0.5', "mine.jsonl:2: base_policy_logprob is 0.5"),
        ('"judge_score": 1.7', "mine.jsonl:2: judge_score is 1.7"),
        ('"oracle_label": -1', "mine.jsonl:2: oracle_label is -1"),
        (
            '"target_policy_logprobs": {"clone": -3.0, "clown": -2.0}',
            "unknown target policy 'clown' (did you mean 'clone'?)",
        ),
        ('"prompt_id": "row0"', "mine.jsonl:2"),
    ],
)
def test_a_bad_row_of_own_data_is_refused_with_the_reason(tmp_path, change, sentence):
    rows = [json.dumps(LOGGED | {"prompt_id": f"row{i}"}) for i in range(20)]
    key = change.split(":")[0]
    before = json.dumps(LOGGED | {"prompt_id": "row1"})
    start = before.index(key)
    end = (
        before.index('}, "judge') + 1
        if "target" in key
        else min(i for i in (before.find(",", start), len(before)) if i > 0)
    )
    rows[1] = before[:start] + change + before[end:] if end < len(before) else before[:start] + change + "}"
    (tmp_path / "mine.jsonl").write_text("\n".join(rows))
    run = Run(tmp_path, {"logged_data": "mine.jsonl"})
    expect_refusal(run, sentence, "results/coverage_0.5/snips.json")


def test_direct_is_refused_for_own_data_without_fresh_draws(tmp_path):
    (tmp_path / "mine.jsonl").write_text(json.dumps(LOGGED))
    run = Run(tmp_path, {"logged_data": "mine.jsonl"})
    expect_refusal(run, "needs fresh draws of the target policies", "results/coverage_0.5/direct.json")


def test_a_missing_folder_of_fresh_draws_is_refused(tmp_path):
    (tmp_path / "mine.jsonl").write_text(json.dumps(LOGGED))
    expect_refusal(Run(tmp_path, {"logged_data": "mine.jsonl", "fresh_draws": "nowhere"}), "nowhere")


def test_a_missing_file_of_logged_data_is_refused(tmp_path):
    expect_refusal(Run(tmp_path, {"logged_data": "nowhere.jsonl"}), f"nowhere.jsonl: no such file in {tmp_path}")


def test_a_result_file_of_the_same_run_is_refused_as_logged_data(tmp_path):
    place = tmp_path / "results" / "coverage_0.5"
    place.mkdir(parents=True)
    (place / "cje_dataset.jsonl").write_text(json.dumps(LOGGED))
    run = Run(tmp_path, {"logged_data": "results/coverage_0.5/cje_dataset.jsonl"})
    expect_refusal(run, "is among the results of this working directory", "results/coverage_0.5/snips.json")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"prompt_id,judge_score\na,0.5\n",
            "is not JSONL (it begins with 'prompt_id,judge_score'); expected one JSON object per line (`arena-cje convert` ",
        ),
        (b"\x1f\x8b\x08\x00", "is compressed"),
        (b'[{"prompt_id": "a"}]', "is one JSON array"),
    ],
)
def test_logged_data_in_another_file_format_are_refused_with_that_format(tmp_path, content, sentence):
    (tmp_path / "mine.jsonl").write_bytes(content)
    expect_refusal(Run(tmp_path, {"logged_data": "mine.jsonl"}), sentence, "results/coverage_0.5/snips.json")


def test_a_wrong_file_format_is_reported_before_missing_draws_and_log_probabilities(tmp_path):
    """No estimator could find draws or log probabilities in such a file, so the format is the mistake to report."""
    (tmp_path / "mine.csv").write_text("prompt_id,judge_score\na,0.5\n")
    run = Run(tmp_path, {"logged_data": "mine.csv"})
    expect_refusal(run, "mine.csv: is not JSONL", "results/coverage_0.1/direct.json")
    (file,), _ = foreign_files.promptfoo(tmp_path)
    run = Run(tmp_path, {"logged_data": str(file), "fresh_draws": "draws"})
    output = run.snakemake("results/coverage_0.1/direct.json", "-n", ok=False)
    assert f"ERROR {file}: is a file of the format promptfoo" in output and "NOTE" not in output


def test_a_bad_row_after_those_that_a_dry_run_reads_fails_in_the_job(tmp_path):
    rows = [LOGGED | {"prompt_id": f"row{i}", "response": "word " * 4000} for i in range(1002)]
    rows[-1]["judge_score"] = 1.7
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = Run(tmp_path, {"logged_data": "mine.jsonl"})
    expect_failing_job(run, "mine.jsonl:1002: judge_score is 1.7", "results/coverage_0.5/snips.json")


@pytest.mark.parametrize(
    ("change", "keys", "sentence"),
    [
        ({"oracle_label": None}, {}, "mine.jsonl: no row has an oracle_label, needed to calibrate the judge for snips"),
        ({"target_policy_logprobs": {}}, {}, "mine.jsonl: no row has target_policy_logprobs, needed by snips"),
        ({}, {"decision": {"against": "clown"}}, "`decision.against` is 'clown', which is not a policy of the data"),
    ],
)
def test_a_dry_run_reports_what_own_data_lack_for_the_requested_result(tmp_path, change, keys, sentence):
    rows = [LOGGED | {"prompt_id": f"row{i}"} | change for i in range(20)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    expect_refusal(Run(tmp_path, {"logged_data": "mine.jsonl"} | keys), sentence, "results/coverage_0.5/snips.json")


@pytest.fixture
def own_data(tmp_path) -> Run:
    """Logged data with draws of one target, a folder for probes and a file of calibration data, one row each."""
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(LOGGED | {"prompt_id": p}) + "\n" for p in "ab"))
    draws = [{"prompt_id": p, "judge_score": 0.5, "response": "Hm."} for p in "ab"]
    (tmp_path / "draws").mkdir()
    (tmp_path / "draws" / "clone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in draws))
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "clone.jsonl").write_text(json.dumps(draws[0] | {"oracle_label": 1.0}) + "\n")
    (tmp_path / "more.jsonl").write_text('{"prompt_id": "x", "judge_score": 0.5, "oracle_label": 1.0}\n')
    config = {"logged_data": "mine.jsonl", "fresh_draws": "draws", "probes": "probes", "calibration_data": "more.jsonl"}
    return Run(tmp_path, config)


DATA_SET = "results/coverage_0.5/cje_dataset.jsonl"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt_id": "z"}, "draws/clone.jsonl has no draw 0 of prompt 'z'"),
        ({"judge_score": 0.4}, "probes/clone.jsonl:2: judge_score is 0.4, but its draw (draws/clone.jsonl:2) has 0.5"),
        ({"response": "Oh."}, "probes/clone.jsonl:2: response is 'Oh.', but its draw (draws/clone.jsonl:2) is 'Hm.'"),
        ({"oracle_label": None}, "probes/clone.jsonl:2: oracle_label is missing or null"),
    ],
)
def test_a_probe_label_that_matches_no_fresh_draw_is_refused_with_its_file(own_data, row, sentence):
    probe = {"prompt_id": "b", "judge_score": 0.5, "oracle_label": 1.0} | row
    with open(own_data.directory / "probes" / "clone.jsonl", "a") as file:
        file.write(json.dumps(probe) + "\n")
    expect_refusal(own_data, sentence, DATA_SET)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ('{"prompt_id": "x", "judge_score": 0.4, "oracle_label": 1.0}', "more.jsonl:2: prompt_id 'x' appears again"),
        (
            '{"prompt_id": "a", "judge_score": 0.5, "oracle_label": 0.1}',
            "differs by more than 0.05 from that of the logged",
        ),
        ('{"prompt_id": "y", "judge_score": 50, "oracle_label": 0.1}', "set the ranges of your data: `judge_scale`"),
    ],
)
def test_bad_calibration_data_are_refused_with_the_reason(own_data, row, sentence):
    with open(own_data.directory / "more.jsonl", "a") as file:
        file.write(row + "\n")
    expect_refusal(own_data, sentence, DATA_SET)


def test_missing_label_files_and_probes_of_an_unknown_policy_are_refused(own_data):
    (own_data.directory / "probes" / "clown.jsonl").write_text("")
    expect_refusal(
        own_data, "probes of 'clown', which has no fresh draws as a target policy (did you mean 'clone'?)", DATA_SET
    )
    own_data.config["probes"] = "nowhere"
    expect_refusal(own_data, "nowhere: no such folder", DATA_SET)
    own_data.config |= {"probes": None, "calibration_data": "nowhere.jsonl"}
    expect_refusal(own_data, f"nowhere.jsonl: no such file in {own_data.directory}", DATA_SET)


def test_a_missing_file_of_calibration_data_is_refused_for_generated_responses(run):
    run.config["calibration_data"] = "nowhere.jsonl"
    expect_refusal(run, "nowhere.jsonl: no such file in")


def test_an_unknown_key_of_a_variant_is_refused_with_the_nearest_key(run):
    run.config["variants"] = {"mine": {"estimator": "direct", "calibraton": "auto"}}
    expect_refusal(run, "config: unknown key `variants.mine.calibraton` (did you mean 'calibration'?)")


def test_the_command_line_reports_a_missing_file_in_one_sentence(tmp_path):
    command = [sys.executable, "-m", "arena_cje", "show", str(tmp_path / "none.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 1
    assert process.stderr.startswith("ERROR: ")
    assert process.stderr.count("\n") == 1
    assert Path(tmp_path / "none.json").name in process.stderr
