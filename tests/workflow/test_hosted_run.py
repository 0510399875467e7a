"""The whole workflow with models behind an API: simulated models of known values, faults, kills, keys, budgets, a real server."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import yaml

import arena_cje
import hosted_world
from arena_cje.data import schemas
from arena_cje.llama import chat, scorer
from arena_cje.llama.distribution import Sampling
from arena_cje.llama.model import open_model
from fault_server import FaultServer, seeded
from llama_server import llama_server
from workflow_run import ROOT, SNAKEMAKE, Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRODUCTION = ROOT / "config" / "experiments" / "arena-production.yaml"
LOCAL = ROOT / "config" / "experiments" / "smoke.yaml"
KEYS = {"FIREWORKS_API_KEY": "fw_3ZsecretOfTheFirst", "OPENAI_API_KEY": "sk-proj-secretOfTheSecond"}
TARGETS = ("results/coverage_0.5/calibrated-ips.json", "results/coverage_0.5/direct.json")
LIMIT = 4


def study(url: str, **changes) -> dict:
    """The production study at a small size, with the endpoints of its models at `url`."""
    config = yaml.safe_load(PRODUCTION.read_text())
    config |= {
        "prompts": {"source": "prompts/default.jsonl"},
        "n_prompts": 60,
        "draws_per_prompt": 1,
        "shard_size": 30,
        "coverages": ["0.5"],
        "budget_usd": None,
    }
    provider_limits = {"max_concurrency": LIMIT, "requests_per_minute": None, "timeout": 5.0}
    config["providers"] = {
        "fireworks": {"base_url": url, **provider_limits},
        "openai": {"base_url": f"{url}/v1", **provider_limits},
    }
    config["policies"] = {name: config["policies"][name] for name in ("base", "clone", "premium")}
    config["oracle"]["target_labels"] = None
    config["prices"] |= {config["judge"]["model"]: {"input": 0.1, "output": 0.4}}
    config["prices"] |= {config["oracle"]["model"]: {"input": 1.25, "output": 10.0}}
    config["estimators"] = ["calibrated-ips", "direct"]
    return config | changes


@pytest.fixture(autouse=True, scope="module")
def keys():
    with pytest.MonkeyPatch.context() as patch:
        for name, key in KEYS.items():
            patch.setenv(name, key)
        yield


@pytest.fixture(scope="module")
def world() -> Iterator[FaultServer]:
    with FaultServer(replies=hosted_world.reply, latency=0.01) as server:
        yield server


@pytest.fixture(scope="module")
def finished_study(world, tmp_path_factory) -> tuple[Run, dict]:
    """The finished study without faults, and the counts of the server."""
    run = Run(tmp_path_factory.mktemp("plain"), study(world.url))
    run.snakemake(*TARGETS)
    return run, {"max_in_flight": world.max_in_flight, "answered": dict(world.answered), "sent": world.sent.total()}


def estimates(run: Run, estimator: str) -> arena_cje.Result:
    return arena_cje.load(run.path(f"coverage_0.5/{estimator}.json"))


def true_value(policy: str) -> float:
    config = yaml.safe_load(PRODUCTION.read_text())["policies"]
    model = config[policy].get("model", config["base"]["model"])
    return hosted_world.value(model, "You are a helpful assistant.")


def test_estimates_with_an_api_are_near_the_true_values(finished_study):
    run, _ = finished_study
    for estimator in ("calibrated-ips", "direct"):
        result = estimates(run, estimator)
        for policy, estimate, se in zip(result.policies, result.estimates, result.standard_errors, strict=True):
            assert abs(estimate - true_value(policy)) < 3.5 * se < 0.2, (estimator, policy)


def test_the_clone_of_a_hosted_base_has_weights_of_exactly_one(finished_study):
    rows = [
        json.loads(line) for line in finished_study[0].path("coverage_0.5/cje_dataset.jsonl").read_text().splitlines()
    ]
    assert {row["target_policy_logprobs"]["clone"] - row["base_policy_logprob"] for row in rows} == {0.0}


def test_log_probabilities_equal_those_of_the_simulated_model(finished_study):
    chance = dict(zip(hosted_world.WORTH, hosted_world.LARGER, strict=True))
    rows = [
        json.loads(line) for line in finished_study[0].path("coverage_0.5/cje_dataset.jsonl").read_text().splitlines()
    ]
    for row in rows:
        exact = math.fsum(math.log(chance[word]) for word in row["response"].split())
        assert row["target_policy_logprobs"]["premium"] == pytest.approx(exact)


def test_the_request_limit_holds_over_all_jobs_and_no_request_is_sent_twice(finished_study):
    _, counts = finished_study
    assert 1 < counts["max_in_flight"] <= 2 * LIMIT  # two providers, each with its own limit
    assert counts["sent"] == len(counts["answered"]) == sum(counts["answered"].values())


def test_the_provenance_names_the_model_versions_that_answered(finished_study):
    summary = json.loads(finished_study[0].path("coverage_0.5/summary.json").read_text())
    provenance = json.dumps(summary["provenance"])
    assert "llama-v3p3-70b-instruct-2025" in provenance and "fp_1" in provenance


def test_faults_and_a_kill_change_no_result_and_stored_answers_are_not_paid_for_again(finished_study, world, tmp_path):
    run, repeat = finished_study[0], Run(tmp_path, finished_study[0].config)
    world.answered.clear()
    world.faults = seeded(0.3, seed=3, max_faults=3)
    try:
        process = repeat.start(*TARGETS)
        deadline = time.monotonic() + 120
        while world.answered.total() < 200 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, "the run ended before it could be killed"
        for child in reversed(descendants(process.pid)):
            os.kill(child, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)  # the server answers the requests in flight, and nothing reads these answers
        before = world.answered.copy()
        journal_keys = {
            key for file in (tmp_path / "results/journal/calls").rglob("*.jsonl") for key in keys_in_journal(file)
        }
        repeat.snakemake("--unlock")
        output = repeat.snakemake(*TARGETS)
    finally:
        world.faults = seeded(0.0)
    # Each job may lose its requests in flight, and one answer that is not yet on disk.
    assert len(journal_keys) >= before.total() - 2 * 2 * LIMIT
    twice = [name for name, count in world.answered.items() if count > 1]
    assert len(twice) <= before.total() - len(journal_keys) + WRONG_ANSWERS
    assert "retries" in output
    outputs, repeated_outputs = run.outputs(), repeat.outputs()
    assert outputs.keys() == repeated_outputs.keys()
    assert [name for name in outputs if outputs[name] != repeated_outputs[name]] == []


WRONG_ANSWERS = 0  # requests that are sent again after a whole answer that cannot be used


def descendants(pid: int) -> list[int]:
    import psutil

    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def keys_in_journal(file: Path) -> list[str]:
    lines = [line for line in file.read_bytes().splitlines() if line.strip()]
    return [json.loads(line.partition(b" ")[2])["key"] for line in lines if line.endswith(b"}")]


def test_an_api_key_is_in_no_file_and_no_output(finished_study, world, tmp_path):
    """The server repeats the key in its error; files, logs (Snakemake's too) and the terminal do not."""
    run = Run(tmp_path, study(world.url))
    world.faults = lambda body, earlier: "401"
    try:
        output = run.snakemake(*TARGETS, ok=False)
    finally:
        world.faults = seeded(0.0)
    assert "401" in output and "OPENAI_API_KEY" not in output.replace("FIREWORKS_API_KEY", "")
    assert set(KEYS.values()) & set(world.keys)
    for directory in (run.directory, finished_study[0].directory):
        for path in directory.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            assert not any(key[-12:].encode() in content for key in KEYS.values()), path
    assert not any(key[-12:] in output for key in KEYS.values())


def test_the_actual_cost_is_within_the_estimated_range(finished_study, monkeypatch):
    run, counts = finished_study
    for name in KEYS:
        monkeypatch.delenv(name)
    output = run.snakemake("cost")
    cost = json.loads(run.path("cost.json").read_text())
    total = cost["total"]
    assert total["actual"]["calls"] == counts["sent"]
    for quantity in ("calls", "prompt_tokens", "completion_tokens", "usd"):
        low, _, high = total["estimate"][quantity]
        assert low <= total["actual"][quantity] <= high, quantity
    assert "judge" in output


def test_a_budget_stops_the_run_and_with_a_larger_one_it_continues(world, tmp_path):
    config = study(world.url, budget_usd=0.002)
    run = Run(tmp_path, config)
    output = run.snakemake("results/responses/base.jsonl", "results/responses/clone.jsonl", ok=False)
    assert "budget" in output
    entries = [json.loads(line) for line in (tmp_path / "results/journal/spending.jsonl").read_text().splitlines()]
    costs = [entry["usd"] for entry in entries]
    assert 0.002 <= sum(costs) <= 0.002 + LIMIT * max(costs)
    run.config = config | {"budget_usd": 1.0}
    run.snakemake("results/responses/base.jsonl", "results/responses/clone.jsonl")
    assert len(schemas.RESPONSES.read(run.path("responses/base.jsonl"))) == 60


def test_a_dry_run_of_the_production_study_needs_no_key_and_accepts_a_local_server(tmp_path, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    arguments = ["-s", str(ROOT / "Snakefile"), "-n", "--cores", "2", "--configfile", str(PRODUCTION)]
    command = [*SNAKEMAKE, "results/archive.zip", *arguments]
    for more in ([], [str(LOCAL)]):
        process = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        assert "generate_hosted" in process.stdout
        (archive,) = (block for block in process.stdout.split("\n\n") if "output: results/archive.zip" in block)
        template = "chatml.yaml" if more else "llama-3.yaml"
        assert f"resources/templates/{template}" in archive and "resources/judges/rating.yaml" in archive


@pytest.fixture(scope="module")
def real_server(tmp_path_factory, default_model) -> Iterator[str]:
    """llama.cpp's server with the default model."""
    with llama_server(default_model, tmp_path_factory.mktemp("server")) as url:
        yield url


def server_config(url: str, **policies) -> dict:
    """A configuration of policies behind the real server."""
    return {
        "n_prompts": 4,
        "shard_size": 4,
        "providers": {
            "echo": {"api": "fireworks", "base_url": url, "echo_max_tokens": 1, "max_concurrency": 1},
            "chat": {"api": "openai", "base_url": f"{url}/v1", "json_reply": "object", "max_concurrency": 1},
        },
        "policies": policies,
    }


ECHO = {"provider": "echo", "model": "any", "template": "chatml.yaml", "system_prompt": "helpful.txt", "max_tokens": 6}


def test_a_real_server_answers_judges_labels_and_scores(real_server, default_model, tmp_path):
    """Chat, chat log probabilities and JSON through the openai client, echoed log probabilities through the Fireworks client,
    equal to those of our own passes."""
    talker = {"provider": "chat", "model": "any", "system_prompt": "concise.txt", "max_tokens": 6}
    config = server_config(real_server, base=ECHO, clone={"like": "base"}, talker=talker) | {
        "judge": {"provider": "chat", "model": "any", "rubric": "helpfulness.yaml", "max_unscored": 1.0},
        "oracle": {"provider": "chat", "model": "any", "rubric": "rating.yaml", "max_tokens": 40, "max_unscored": 1.0},
        "coverages": ["1.0"],
        "estimators": ["direct", "calibrated-ips"],
    }
    run = Run(tmp_path, config)
    output = run.snakemake("results/coverage_1.0/direct.json", "results/coverage_1.0/calibrated-ips.json")
    assert "only `direct` can estimate policy 'talker'" in output
    assert "talker" in arena_cje.load(run.path("coverage_1.0/calibrated-ips.json")).refused
    judged = schemas.GRADES.read(run.path("judge/talker.jsonl"))
    assert any(row["score"] is not None and 0 < row["choice_mass"] <= 1 for row in judged)
    labels = schemas.GRADES.read(run.path("oracle/base/coverage_1.0.jsonl"))
    assert len(labels) == 4 and all(row["reply"] for row in labels)
    logprobs = schemas.LOGPROBS.read(run.path("logprobs/base.parquet"))
    logprob_rows = {row["prompt_id"]: row for row in logprobs.iter_rows(named=True)}
    system = "You are a helpful assistant."
    with open_model(default_model, n_ctx=1024) as model:
        for row in schemas.RESPONSES.read(run.path("responses/base.jsonl")):
            ids = chat.respond(model, system, row["prompt"], row["response"])
            ids = (*ids, chat.end_of_turn(model)) if row["finish_reason"] == "stop" else ids
            item = scorer.Item("one", chat.render(model, system, row["prompt"]), ids)
            ((_, (own,)),) = scorer.score(model, [item], [Sampling()])
            logprob_row = logprob_rows[row["prompt_id"]]
            assert (logprob_row["status"], logprob_row["n_boundary"]) == ("ok", 0)
            assert logprob_row["logprob"] == pytest.approx(own.total, abs=0.1), row["response"]


def test_a_server_whose_echo_scores_the_wrong_tokens_is_detected(real_server, tmp_path):
    """Without a token that begins the text, the echo of llama-cpp-python's server is off by one."""
    texts = {"with_system": "{system}\n{prompt}\nAnswer:", "without_system": "{prompt}\nAnswer:"}
    template_text = {**texts, "end": "<|im_end|>", "control": ["<|im_end|>"]}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(template_text))
    for template, ok in (("chatml.yaml", True), ("plain.yaml", False)):
        config = server_config(real_server, base=ECHO | {"template": template}, clone={"like": "base"})
        output = Run(tmp_path, config).snakemake("check_models", ok=ok)
        assert ("does not score given text" in output or "are inconsistent" in output) != ok, output
