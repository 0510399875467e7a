"""The workflow inside another one, as a module from a folder, a Git repository or a hosting service; its own `.test` folder."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

import arena_cje
import tiny_gguf
from own_data import write_world
from workflow_run import CONFIG, ROOT, SNAKEMAKE, Run, copy_workflow, parse_jobs, write_prompts

if TYPE_CHECKING:
    from pathlib import Path

TARGET = "results/coverage_0.5/direct.json"
SMALL = copy.deepcopy(CONFIG) | {"n_prompts": 16, "shard_size": 16, "coverages": ["0.5"], "estimators": ["direct"]}


def git(folder: Path, *arguments: str) -> str:
    """The output of Git in a folder, with a user name that commits need."""
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    process = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return process.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """The workflow as it is here, as a commit with the branch main and the tag v1."""
    folder = copy_workflow(tmp_path_factory.mktemp("repository") / "arena-cje")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "the workflow")
    git(folder, "tag", "v1")
    return folder


def write_data(folder: Path, tiny_model: Path) -> None:
    """The files that the small configuration names."""
    (folder / "tiny.gguf").symlink_to(tiny_model)
    write_prompts(folder / "prompts.jsonl", 16)
    (folder / "other.txt").write_text("Answer with other words.")


def snakemake(folder: Path, *arguments: str, ok: bool = True, **environment: str) -> str:
    """Run the Snakefile of a folder to the end; its output."""
    process = subprocess.run(
        [*SNAKEMAKE, "--cores", "2", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    output = process.stdout + process.stderr
    assert (process.returncode == 0) == ok, output
    return output


PREFIXED = f"""
configfile: "outer.yaml"

module arena:
    snakefile: "git+file://REPOSITORY/workflow/Snakefile@main"
    config: config["arena"]

use rule * from arena as arena_*

rule page:
    default_target: True
    input: "{TARGET}"
    output: "page.txt"
    params: title=config["title"], settings=",".join(config["arena"])
    shell: "echo {{params.title}} {{params.settings}} > {{output}}"

onstart:
    arena.onstart()
onsuccess:
    arena.onsuccess()
"""


def write_prefixed(folder: Path, repository: Path, **changes) -> None:
    """Another workflow that has this one as a module, whose rules have a prefix."""
    outer = {"title": "Mine", "arena": SMALL | changes}
    (folder / "outer.yaml").write_text(yaml.safe_dump(outer, sort_keys=False))
    (folder / "Snakefile").write_text(PREFIXED.replace("REPOSITORY", str(repository)))


def test_a_prefixed_module_of_a_git_repository_runs_and_follows_its_branch(tmp_path, tiny_model, repository):
    repository = shutil.copytree(repository, tmp_path / "arena")
    folder = tmp_path / "outer"
    folder.mkdir()
    write_data(folder, tiny_model)
    write_prefixed(folder, repository)
    output = snakemake(folder)
    assert "direct: 16 logged responses" in output
    assert "rule arena_judge:" in output
    assert (folder / "page.txt").read_text() == f"Mine {','.join(SMALL)}\n"  # its configuration is unchanged
    assert arena_cje.load(folder / TARGET).policies == ("other", "cool", "clone")
    assert "Nothing to be done" in snakemake(folder)

    with (repository / "workflow" / "arena_cje" / "estimators" / "direct.py").open("a") as file:
        file.write("# another version\n")
    (repository / "resources" / "policies" / "unhelpful.txt").unlink()
    git(repository, "commit", "--quiet", "--all", "--message", "another version")
    assert parse_jobs(snakemake(folder, "-n")) == {"arena_estimate 0.5 direct", "page"}
    assert not (folder / ".arena-cje" / "resources" / "policies" / "unhelpful.txt").exists()


def test_api_keys_are_checked_before_any_job_of_a_module_with_prefixed_rules(tmp_path, tiny_model, repository):
    write_data(tmp_path, tiny_model)
    judge = {"provider": "openai", "model": "somebody", "rubric": "rating.yaml"}
    write_prefixed(tmp_path, repository, judge=judge, judges={"other": judge})
    output = snakemake(tmp_path, "page.txt", "results/judges/other/base.jsonl", ok=False, OPENAI_API_KEY="")
    assert "OPENAI_API_KEY" in output
    assert "steps (" not in output


def test_a_module_of_a_hosting_service_plans_the_default_experiment(tmp_path, repository):
    (tmp_path / "Snakefile").write_text(
        """
module arena:
    snakefile: github("somebody/arena", path="workflow/Snakefile", tag="v1")

use rule * from arena
"""
    )
    git_environment = {  # Git reads the repository on this machine in the place of the one on the network
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/somebody/arena",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    output = snakemake(tmp_path, "-n", "results/prompts.jsonl", "--config", "n_prompts=200", **git_environment)
    assert parse_jobs(output) == {"sample_prompts 0000", "sample_prompts 0001", "gather prompts"}


def test_a_module_of_a_folder_takes_a_whole_configuration(tmp_path):
    """As deployment from the catalog writes it: the shipped configuration copied, to be edited."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "Snakefile").write_text(
        f"""
configfile: "config/config.yaml"

module arena:
    snakefile: "{ROOT}/workflow/Snakefile"
    config: config

use rule * from arena
"""
    )
    jobs = parse_jobs(snakemake(tmp_path, "-n", "estimates"))
    assert {"estimate_with_draws 0.1", "estimate_without_draws 0.1"} <= jobs
    assert "estimates" in jobs


def test_a_module_with_a_path_prefix_is_refused(tmp_path):
    (tmp_path / "Snakefile").write_text(
        f"""
module arena:
    snakefile: "{ROOT}/workflow/Snakefile"
    prefix: "first"

use rule * from arena
"""
    )
    assert "ERROR module: `prefix` and `replace_prefix` move" in snakemake(tmp_path, "-n", ok=False)


def test_a_missing_python_module_is_named_without_a_traceback(tmp_path):
    (tmp_path / "orjson.py").write_text("raise ModuleNotFoundError('no orjson', name='orjson')")
    output = Run(tmp_path, {}).snakemake("-n", ok=False)  # Python looks into the working directory first
    assert "has no module 'orjson'" in output
    assert "Traceback" not in output


def test_paths_may_hold_braces(tmp_path, tiny_model):
    folder = tmp_path / "{policy} <x>"
    folder.mkdir()
    write_data(folder, tiny_model)
    rubric = (ROOT / "resources" / "judges" / "likelihood.yaml").read_text()
    (folder / "{mine}.yaml").write_text(rubric)
    config = copy.deepcopy(SMALL) | {"judge": {"rubric": str(folder / "{mine}.yaml")}}
    config["prompts"] = {"source": str(folder / "prompts.jsonl")}
    parts = tiny_gguf.write_parts(folder / "{tiny}.gguf", 2)
    config["models"]["smollm2"]["path"] = str(parts[0])
    (folder / "{mine}.txt").write_text("Answer as I would.", encoding="utf-16")
    config["policies"]["base"] |= {"system_prompt": "{mine}.txt", "description": "{mine} <x>"}
    run = Run(folder, config)
    run.snakemake("results/judge/base.jsonl")
    assert len(run.path("judge/base.jsonl").read_text().splitlines()) == 16


def test_own_data_may_have_any_names_of_folders_policies_and_files(tmp_path):
    """With braces, blanks and slashes."""
    data, folder = tmp_path / "{x} <y>", tmp_path / "run"
    data.mkdir()
    folder.mkdir()
    write_world(data)
    logged, policy = data / "mine.jsonl", "org/{better}"
    logged.write_text(logged.read_text().replace('"better"', json.dumps(policy)), encoding="utf-16")
    (data / "draws" / "org").mkdir()
    (data / "draws" / "better_responses.jsonl").rename(data / "draws" / f"{policy}_responses.jsonl")
    run = Run(folder, {"logged_data": str(logged), "fresh_draws": str(data / "draws")})
    run.snakemake(TARGET)
    assert arena_cje.load(folder / TARGET).policies == ("clone", policy)
    names = {path.name for path in run.path("coverage_0.5/fresh_draws").iterdir()}
    assert names == {"clone.jsonl", "org%2F%7Bbetter%7D.jsonl"}
    logged.write_text("no data")
    assert f"ERROR {logged}: is not JSONL" in run.snakemake(TARGET, ok=False)


def test_the_catalogs_test_folder_is_planned_with_its_own_configuration(tmp_path):
    shutil.copytree(ROOT / ".test", tmp_path / "test", ignore=shutil.ignore_patterns("results", "logs", ".snakemake"))
    command = ["-s", str(ROOT / "Snakefile"), "--directory", str(tmp_path / "test"), "-n"]
    jobs = parse_jobs(snakemake(tmp_path, *command))
    assert {"generate cool 0001", "estimate 0.5 direct", "estimate 0.5 calibrated-ips", "archive"} <= jobs
    assert not any("unhelpful" in job for job in jobs)


def test_the_catalogs_test_folder_runs(tmp_path, tiny_model):
    """At smoke size: fewer prompts, a random model in the place of the embedded one, and no figures."""
    folder = shutil.copytree(
        ROOT / ".test", tmp_path / "test", ignore=shutil.ignore_patterns("results", "logs", ".snakemake")
    )
    models = {"smollm2": {"path": str(tiny_model), "n_ctx": 512}}
    run = Run(folder, {"n_prompts": 20, "models": models})
    run.snakemake("estimates")
    assert arena_cje.load(run.path("coverage_0.5/direct.json")).policies == ("clone", "cool")


def test_the_catalogs_test_folder_runs_without_a_model(tmp_path):
    folder = shutil.copytree(
        ROOT / ".test", tmp_path / "test", ignore=shutil.ignore_patterns("results", "logs", ".snakemake")
    )
    run = Run(folder, yaml.safe_load((folder / "config" / "own_data.yaml").read_text()))
    run.snakemake("results/coverage_0.5/direct.json")
    assert arena_cje.load(run.path("coverage_0.5/direct.json")).verdicts["better"].level != "refuse"


def test_a_dry_run_plans_the_fetch_of_a_missing_model_file(tmp_path):
    """The resources of jobs with the model are known only once its file is there."""
    folder = copy_workflow(tmp_path / "workflow")
    assert not list(folder.glob("resources/models/*.gguf"))
    plan = snakemake(folder, "--dry-run", "results/coverage_0.1/calibrated-ips.json")
    assert "fetch_model" in plan and "generate" in plan
