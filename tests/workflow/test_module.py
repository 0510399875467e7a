"""The workflow inside another one: as a module from a folder, a Git repository or a hosting service; and its own `.test` folder."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import arena_cje
from own_data import write_world
from workflow_run import CONFIG, ROOT, SNAKEMAKE, Run, copy_workflow, parse_jobs, write_prompts

TARGET = "results/coverage_0.5/direct.json"
SMALL = copy.deepcopy(CONFIG) | {"n_prompts": 16, "shard_size": 16, "coverages": ["0.5"], "estimators": ["direct"]}


def git(folder: Path, *arguments: str) -> str:
    """Run Git in a folder, as somebody."""
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """The workflow as it is here, as a commit with the branch main and the tag v1."""
    folder = copy_workflow(tmp_path_factory.mktemp("repository") / "arena-cje")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "the workflow")
    git(folder, "tag", "v1")
    return folder


def write_outer(folder: Path, tiny_model: Path, module: str) -> None:
    """A workflow of somebody else's that uses this one as a module, with a rule and a configuration of its own."""
    (folder / "tiny.gguf").symlink_to(tiny_model)
    write_prompts(folder / "prompts.jsonl", 16)
    (folder / "other.txt").write_text("Answer with other words.")
    (folder / "outer.yaml").write_text(yaml.safe_dump({"title": "Mine", "arena": SMALL}, sort_keys=False))
    (folder / "Snakefile").write_text(module)


def snakemake(folder: Path, *arguments: str, ok: bool = True, **environment: str) -> str:
    """Run the Snakefile of a folder to the end; its output."""
    done = subprocess.run(
        [*SNAKEMAKE, "--cores", "2", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, said
    return said


def test_a_prefixed_module_of_a_git_repository_runs_with_the_outer_configuration(tmp_path, tiny_model, repository):
    outer = f"""
configfile: "outer.yaml"

module arena:
    snakefile: "git+file://{repository}/workflow/Snakefile@main"
    config: config["arena"]

use rule * from arena as arena_*

rule report:
    default_target: True
    input: "{TARGET}"
    output: "mine.txt"
    params: title=config["title"], settings=",".join(config["arena"])
    shell: "echo {{params.title}} {{params.settings}} > {{output}}"

onsuccess:
    arena.onsuccess()
"""
    write_outer(tmp_path, tiny_model, outer)
    said = snakemake(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == f"Mine {','.join(SMALL)}\n"  # what was handed over is as it was
    result = arena_cje.load(tmp_path / TARGET)
    assert result.policies == ("other", "cool", "clone")
    assert "rule arena_judge:" in said
    assert "direct: 16 logged responses" in snakemake(tmp_path, "--forcerun", "report")
