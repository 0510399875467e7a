"""Log probabilities of named policies are computed again, those of others are kept."""

import json

import pytest

from arena_cje.errors import UserError
from arena_cje.stages import doctor, redo
from workflow_run import CONFIG, Run, write_prompts

TARGET = "results/coverage_0.5/calibrated-ips.json"


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model) -> Run:
    folder = tmp_path_factory.mktemp("redo")
    (folder / "tiny.gguf").symlink_to(tiny_model)
    write_prompts(folder / "prompts.jsonl", 24)
    (folder / "other.txt").write_text("Answer with other words.")
    prompt = {"system_prompt": "Talk about ships and rum."}
    run = Run(
        folder, CONFIG | {"shard_size": 24, "policies": CONFIG["policies"] | {"pirate": {"like": "base"} | prompt}}
    )
    run.snakemake(TARGET)
    return run


def test_a_system_prompt_may_be_text_in_the_configuration(run):
    (file,) = (run.directory / ".arena-cje" / "system_prompts").iterdir()
    assert file.read_text() == "Talk about ships and rum."
    rows = [json.loads(line) for line in run.path("coverage_0.5/cje_dataset.jsonl").read_text().splitlines()]
    assert any(row["target_policy_logprobs"]["pirate"] != row["base_policy_logprob"] for row in rows)
    assert (run.path("logprobs") / f"smollm2-{file.stem}").is_dir()
    assert run.jobs(TARGET) == set()


def test_only_the_contexts_of_the_named_policies_are_scored_again(run):
    assert run.jobs(TARGET) == set()
    before = run.path("coverage_0.5/cje_dataset.jsonl").read_bytes()
    assert redo.logprobs(run.directory, ["other"]) == ["other"]
    jobs = run.jobs(TARGET)
    assert {job for job in jobs if job.startswith("score")} == {"score smollm2-other 0000"}
    assert not any(job.startswith(("generate", "judge", "oracle")) for job in jobs)
    assert not (run.path("journal") / "score" / "smollm2-other").exists()
    run.snakemake(TARGET)
    assert run.path("coverage_0.5/cje_dataset.jsonl").read_bytes() == before
    assert run.jobs(TARGET) == set()


def test_nothing_is_removed_while_snakemake_runs_in_the_folder(run, monkeypatch):
    monkeypatch.setattr(doctor, "_running_snakemake", lambda folder: 7)
    before = {path: path.read_bytes() for path in (run.path("journal") / "score").rglob("*.jsonl")}
    with pytest.raises(UserError, match="process 7.* is running in"):
        redo.logprobs(run.directory, ["other"])
    assert before and {path: path.read_bytes() for path in before} == before


def test_policies_of_one_context_are_scored_together(run):
    assert redo.logprobs(run.directory, ["cool"]) == ["base", "clone", "cool"]


def test_an_unknown_policy_and_an_empty_folder_are_refused_with_one_sentence(run, tmp_path):
    with pytest.raises(UserError, match=r"'othr' is not a policy of this run .*did you mean 'other'"):
        redo.logprobs(run.directory, ["othr"])
    with pytest.raises(UserError, match="no policy is named; this run has log probabilities under base, clone, cool"):
        redo.logprobs(run.directory, [])
    with pytest.raises(UserError, match="there is no data set yet"):
        redo.logprobs(tmp_path, ["other"])
    (tmp_path / "results" / "coverage_0.5").mkdir(parents=True)
    (tmp_path / "results" / "coverage_0.5" / "summary.json").write_text('{"provenance": []}')
    with pytest.raises(UserError, match="lacks the scoring contexts"):
        redo.logprobs(tmp_path, ["other"])
