"""Prompts of public data sets in a run: read once, counted beside the results, and refused before any job if unreadable."""

from __future__ import annotations

import copy
import json

import pytest

import hub_server
from benchmarks._arena import battle, write_parquet
from workflow_run import CONFIG, Run

ROWS = [battle(f"q{k}", f"Say something about number {k}, please.") for k in range(14)] + [
    battle("again", "Say something about number 3, please."),
    battle("long", "Say something.", "And more."),
    battle("german", "Sag etwas.", language="German"),
]
SELECTED = {"language": "en", "n_rows": 17, "n_eligible": 14, "flagged": 0, "language_known_by": {"field": 16}}
DROPPED = {"several_turns": 1, "other_language": 1, "duplicate": 1}


@pytest.fixture
def run(tmp_path, tiny_model) -> Run:
    """An experiment on conversations of the Arena that a model judges and labels, as they have no references."""
    config = copy.deepcopy(CONFIG) | {"n_prompts": 12, "shard_size": 4}
    config["prompts"] = {"source": "arena.parquet", "language": "en"}
    config["oracle"] = {"provider": "llama_cpp", "model": "smollm2", "rubric": "rating.yaml", "max_unscored": 1.0}
    config["judge"] = {"max_unscored": 1.0}
    (tmp_path / "tiny.gguf").symlink_to(tiny_model)
    (tmp_path / "other.txt").write_text("Answer with other words.")
    write_parquet(tmp_path / "arena.parquet", ROWS)
    return Run(tmp_path, config)


def prompt_ids(run) -> list[str]:
    return [json.loads(line)["prompt_id"] for line in run.path("prompts.jsonl").read_text().splitlines()]


def test_a_parquet_file_of_the_arena_supplies_the_prompts_and_is_read_once(run):
    output = run.snakemake("results/prompts.jsonl", "results/responses/base.jsonl")
    assert output.count("NOTE arena.parquet: 14 prompts of 17 rows; 1 dropped: conversations of several turns") == 1
    assert set(prompt_ids(run)) < {f"q{k}" for k in range(14)} and len(prompt_ids(run)) == 12
    log = (run.directory / "logs" / "prompts" / "0000.log").read_text()
    assert "14 prompts of 17 rows" in log
    first = prompt_ids(run)

    run.config["n_prompts"] = 14
    assert "NOTE arena.parquet" not in run.snakemake("-n", "results/responses/base.jsonl")  # it is not read again
    jobs = run.jobs("results/responses/base.jsonl")
    assert jobs == {"sample_prompts 0003", "generate base 0003", "gather responses/base"}
    run.snakemake("results/prompts.jsonl")
    assert prompt_ids(run)[:12] == first and len(prompt_ids(run)) == 14

    run.config["n_prompts"] = 15
    output = run.snakemake("results/prompts.jsonl", ok=False)
    assert (
        "ERROR config: n_prompts is 15, but arena.parquet has 14 prompts (17 rows without 1 conversations of" in output
    )


def test_results_record_the_source_and_what_was_dropped(run):
    run.config["n_prompts"] = 4
    run.snakemake("results/coverage_0.5/summary.json")
    summary = json.loads(run.path("coverage_0.5/summary.json").read_text())
    recorded = summary["provenance"]["prompts"]
    assert recorded == SELECTED | {"source": "arena.parquet", "revision": None, "dropped": DROPPED}


def test_a_set_that_cannot_be_read_ends_the_run_before_any_job(run):
    content = (run.directory / "arena.parquet").read_bytes()
    (run.directory / "arena.parquet").write_bytes(content[:-100])
    output = run.snakemake("results/prompts.jsonl", ok=False)
    assert "ERROR arena.parquet: not a readable Parquet file, it may be cut off" in output
    assert "Traceback" not in output and not (run.directory / "results").exists()


def test_the_gated_data_set_of_the_hub_is_read_with_a_token_and_refused_without_one(run, monkeypatch):
    run.config["prompts"]["source"] = hub_server.NAME
    content = (run.directory / "arena.parquet").read_bytes()
    with hub_server.serve({hub_server.FIRST: content}) as hub:
        for name, value in hub.environment(run.directory / "cache").items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN")
        output = run.snakemake("results/prompts.jsonl", ok=False)
        assert f"ERROR {hub_server.NAME}: the data set is gated; accept its terms at" in output
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        run.snakemake("results/prompts.jsonl")
        assert len(prompt_ids(run)) == 12
        assert [path for method, path in hub.requests if method == "GET" and path.endswith(".parquet")] != []
    assert "Nothing to be done" in run.snakemake("results/prompts.jsonl")  # without the hub
