"""The experiments of config/experiments/ at smoke size, and every command of their pages (`make smoke`).

Hosted models are a simulated API (`hosted_world`) whose policies have known values; the local model is the default one.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import yaml

import arena_cje
import hosted_world
from fault_server import FaultServer
from llama_server import llama_server
from workflow_run import ROOT, SNAKEMAKE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.smoke

FOLDER = ROOT / "config" / "experiments"
SMOKE = "config/experiments/smoke.yaml"
PAGES = {path.stem: path for path in sorted((ROOT / "docs" / "experiments").glob("*.md")) if path.stem != "README"}
HOSTED = ("arena-simplified", "arena-production", "human-oracle", "model-comparison")
N_PROMPTS = {"human-oracle": 160, "model-comparison": 160}  # more than at smoke size: they label a quarter only
SMOKE_PROMPTS = yaml.safe_load((ROOT / SMOKE).read_text())["n_prompts"]
RATERS = ("ann", "bob", "cy")


def commands(name: str) -> list[str]:
    """The commands of a page."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGES[name].read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    """The environment without API keys, with this library."""
    names = {
        key: value for key, value in os.environ.items() if not key.endswith("_API_KEY") and not key.startswith("HF_")
    }
    return names | {"PYTHONPATH": str(ROOT / "workflow"), "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"}


@dataclass
class Experiment:
    """One experiment in a folder of its own. address: a configuration file with the address of the server."""

    name: str
    folder: Path
    address: Path
    seconds: float = 0.0
    outputs: dict[str, str] = field(default_factory=dict)

    def execute(self, line: str) -> str:
        """The output of a command of the page. A command that would send requests to a service is planned only."""
        words = shlex.split(line)
        if words[0] == "arena-cje":
            paths = [str(p) for word in words[1:] for p in (sorted(self.folder.glob(word)) if "*" in word else [word])]
            return self._run([sys.executable, "-m", "arena_cje", *paths], self.folder)
        assert words[0] == "snakemake", line
        arguments = words[1:]
        if SMOKE in arguments:
            place = arguments.index(SMOKE) + 1
            arguments = [*arguments[:place], str(self.address), *arguments[place:]]
        elif not {"cost", "-n"} & {*arguments}:
            arguments = ["-n", *arguments]
        return self._run([*SNAKEMAKE, "--cores", "2", "--directory", str(self.folder), *arguments], ROOT)

    def _run(self, command: list[str], cwd: Path) -> str:
        process = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment(), timeout=600)
        assert process.returncode == 0, (command, process.stdout[-3000:], process.stderr[-3000:])
        return process.stdout + process.stderr

    def vote(self) -> None:
        """Three raters label the exported tasks: the worth of a response in the simulated world, on a scale of 1 to 5."""
        (self.folder / "votes").mkdir(exist_ok=True)
        for batch in ("pilot", "main"):
            tasks = self.folder / "results" / "labeling" / batch / "tasks.csv"
            rows = list(csv.DictReader(io.StringIO(tasks.read_text(encoding="utf-8-sig"), newline="")))
            for rater in RATERS:
                scores = [(row["item_id"], 1 + round(4 * hosted_world.worth(row["response"]))) for row in rows]
                lines = [f"{item},{batch},{rater},{score}" for item, score in scores]
                content = "\n".join(["item_id,batch,annotator_id,score", *lines]) + "\n"
                (self.folder / "votes" / f"{batch}_{rater}.csv").write_text(content)

    def results(self) -> dict[str, arena_cje.Result]:
        """All results by their file."""
        files = sorted(self.folder.glob("results/coverage_*/*.json"))
        names = {path: json.loads(path.read_text()) for path in files}
        return {str(path): arena_cje.load(path) for path, content in names.items() if "estimates" in content}


@pytest.fixture(scope="module")
def world() -> Iterator[FaultServer]:
    with FaultServer(replies=hosted_world.reply) as server:
        yield server


def addresses(url: str, **more) -> str:
    """The text of a configuration file that replaces the address in smoke.yaml by another."""
    names = {"fireworks": url, "openai": f"{url}/v1", "anthropic": f"{url}/v1"}
    return yaml.safe_dump({"providers": {name: {"base_url": place, **more} for name, place in names.items()}})


FINISHED: dict[str, Experiment] = {}


@pytest.fixture
def experiment(request, world, default_model, tmp_path_factory) -> Experiment:
    """The experiment after all commands of its page, each run once."""
    name = request.param
    if name not in FINISHED:
        folder = tmp_path_factory.mktemp(name)
        address = folder / "address.yaml"
        more = yaml.safe_dump({"n_prompts": N_PROMPTS.get(name, SMOKE_PROMPTS)})
        address.write_text(addresses(world.url, max_concurrency=16) + more)
        study, start = Experiment(name, folder, address), time.monotonic()
        if name == "human-oracle":
            export = (
                f"snakemake --configfile config/experiments/{name}.yaml {SMOKE} -- results/labeling/main/label.html"
            )
            study.execute(export)
            study.vote()
        page = commands(name)
        runs = [line for line in page if SMOKE in line]
        plans = [line for line in page if line.startswith("snakemake ") and line not in runs and " cost " not in line]
        others = [line for line in page if line not in {*runs, *plans}]
        study.outputs |= {line: study.execute(line) for line in [*runs, *others]}
        with ThreadPoolExecutor(2) as pool:  # a plan takes no lock
            study.outputs |= zip(plans, pool.map(study.execute, plans), strict=True)
        study.seconds = time.monotonic() - start
        FINISHED[name] = study
    return FINISHED[name]


def for_each_experiment(test):
    return pytest.mark.parametrize("experiment", PAGES, indirect=True)(test)


def test_each_experiment_has_a_page_and_each_page_its_smoke_run():
    shipped = {path.stem for path in FOLDER.glob("*.yaml")} - {"smoke", "human-oracle-smoke"}
    assert shipped == PAGES.keys()
    for name in PAGES:
        (line,) = [line for line in commands(name) if SMOKE in line]
        assert f"config/experiments/{name}.yaml" in line


@for_each_experiment
def test_all_commands_of_the_page_run_and_produce_estimates(experiment):
    assert len(experiment.outputs) >= 6
    results = experiment.results()
    assert results
    assert any(math.isfinite(value) for result in results.values() for value in result.estimates)


@pytest.mark.parametrize("experiment", HOSTED, indirect=True)
def test_published_estimates_are_near_the_true_values_of_the_simulated_world(experiment):
    """Known values within four standard errors, for every estimator and policy whose model and prompt have one."""
    config = yaml.safe_load((FOLDER / f"{experiment.name}.yaml").read_text())["policies"]
    n_compared = 0
    for file, result in experiment.results().items():
        for policy, estimate, se in zip(result.policies, result.estimates, result.standard_errors, strict=True):
            block = config["base"] | config[policy]
            prompt = (ROOT / "resources" / "policies" / block["system_prompt"]).read_text()
            if math.isfinite(estimate):  # a refused estimate is NaN
                n_compared += 1
                sampling = 0.3 / 60**0.5 / 2  # of 60 prompts whose labels lie between .2 and .8
                margin = 4 * max(se, sampling)
                assert abs(estimate - hosted_world.value(block["model"], prompt)) < margin, (file, policy)
    assert n_compared >= 2


@pytest.mark.parametrize("experiment", ["arena-simplified", "arena-production", "llama-cpp-oracle"], indirect=True)
def test_the_clone_has_weights_of_exactly_one(experiment):
    clone = "pi_clone" if experiment.name == "llama-cpp-oracle" else "clone"
    (data, *_) = sorted(experiment.folder.glob("results/coverage_*/cje_dataset.jsonl"))
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    assert {row["target_policy_logprobs"][clone] - row["base_policy_logprob"] for row in rows} == {0.0}


@pytest.mark.parametrize("experiment", ["llama-cpp-oracle"], indirect=True)
def test_judge_scores_with_and_without_uncertainty_come_from_the_same_answers(experiment):
    spending = (experiment.folder / "results/journal/spending.jsonl").read_text().splitlines()
    models = [json.loads(line)["model"] for line in spending]
    assert (
        models.count("gpt-4.1-nano-2025-04-14") <= 5 * SMOKE_PROMPTS
    )  # one request for each response of five policies
    rows = [json.loads(line) for line in next(experiment.folder.glob("results/coverage_*/cje_dataset.jsonl")).open()]
    assert all(row["judge_distribution"] for row in rows)
    assert all(row["metadata"]["judge_certain"] == pytest.approx(row["judge_score"]) for row in rows)


@pytest.mark.parametrize("experiment", ["arena-production"], indirect=True)
def test_one_policy_has_more_draws_than_the_others(experiment):
    count = {name: len((experiment.folder / f"results/responses/{name}.jsonl").read_text().splitlines()) for name in
             ("clone", "premium")}  # fmt: skip
    assert count == {"clone": SMOKE_PROMPTS, "premium": 10 * SMOKE_PROMPTS}


@pytest.mark.parametrize("experiment", ["model-comparison"], indirect=True)
def test_the_model_comparison_exports_true_values_and_corrected_p_values(experiment):
    export = json.loads((experiment.folder / "results/export/coverage_0.25/token_level_cje_results.json").read_text())
    assert export["p_values_corrected"]
    assert all(row["oracle_truth"] is not None for row in export["results"].values())


def test_an_experiment_runs_with_the_server_of_llama_cpp_at_smoke_size(default_model, tmp_path):
    """The server that the pages name: generation, scoring, judging and labels of a scored experiment."""
    with llama_server(default_model, tmp_path) as url:
        address = tmp_path / "address.yaml"
        address.write_text(addresses(url))
        real = Experiment("arena-simplified", tmp_path, address)
        target = "results/coverage_0.5/cje_dataset.jsonl"
        line = f"snakemake {target} --configfile config/experiments/arena-simplified.yaml {SMOKE} --config n_prompts=4"
        real.execute(line)
    rows = [json.loads(row) for row in (tmp_path / target).read_text().splitlines()]
    assert len(rows) == 4
    assert all(row["target_policy_logprobs"]["clone"] == row["base_policy_logprob"] < 0 for row in rows)
    assert any(row["target_policy_logprobs"]["unhelpful"] != row["base_policy_logprob"] for row in rows)


def test_the_printed_table_has_a_row_for_each_experiment(capsys):
    """Printed at the end of `make smoke`."""
    head = [
        "experiment",
        "seconds",
        "prompts",
        "calls",
        "results",
        "published",
        "refused",
        "files",
        "MB in the archive",
    ]
    lines = []
    for name, study in FINISHED.items():
        results = study.results().values()
        n_published = sum(math.isfinite(value) for result in results for value in result.estimates)
        n_refused = sum(not math.isfinite(value) for result in results for value in result.estimates)
        spending = (study.folder / "results/journal/spending.jsonl").read_text().splitlines()
        files = [
            path for path in (study.folder / "results").rglob("*") if path.is_file() and "journal" not in path.parts
        ]
        archive = study.folder / "results" / "archive.zip"
        size = f"{archive.stat().st_size / 1e6:.1f}" if archive.exists() else "-"
        prompts = N_PROMPTS.get(name, SMOKE_PROMPTS)
        counts = [prompts, len(spending), len(results), n_published, n_refused, len(files)]
        lines.append([name, f"{study.seconds:.0f}", *counts, size])
    with capsys.disabled():
        print()
        for row in [head, ["---"] * len(head), *lines]:
            print("| " + " | ".join(map(str, row)) + " |")
    assert [row[0] for row in lines] == [*PAGES]
