"""Runs of the workflow in a temporary folder with a tiny random model: Snakemake and llama.cpp as in real runs, in seconds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
WORKFLOW_FILES = ("Snakefile", "workflow", "config", "profiles", "resources", "envs")
# Tests read the messages of single jobs in the output of these runs, too.
os.environ["VERBOSE"] = "1"

CONFIG: dict[str, Any] = {
    "seed": 1,
    "n_prompts": 24,
    "shard_size": 8,
    "prompts": {"source": "prompts.jsonl"},
    "models": {"smollm2": {"file": None, "path": "tiny.gguf", "n_ctx": 512}},
    "policies": {
        "base": {"model": "smollm2", "system_prompt": "helpful.txt", "max_tokens": 6},
        "other": {"like": "base", "system_prompt": "other.txt"},
        "cool": {"like": "base", "temperature": 0.8},
        "clone": {"like": "base"},
    },
    "coverages": ["0.25", "0.5"],
    "estimators": ["calibrated-ips", "direct", "snips"],
}


def write_prompts(path: Path, n: int) -> None:
    """Write prompts with references that random letters match in some responses."""
    letters = "etaoinshrdlu"
    rows = [
        {
            "prompt_id": f"q{i}",
            "prompt": f"Say something about number {i}, please.",
            "reference": {"pattern": f"[{letters[i % 12]}{letters[(i * 5) % 12]}]"},
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def copy_workflow(destination: Path) -> Path:
    """A copy of the workflow's files for tests that edit them."""
    destination.mkdir(parents=True)
    for name in WORKFLOW_FILES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("*.gguf", "__pycache__", "*.egg-info", ".fetch-*")
            shutil.copytree(source, destination / name, ignore=ignored)
        else:
            shutil.copy2(source, destination / name)
    return destination


@dataclass
class Run:
    """A working directory with its configuration. root: folder of the workflow that runs in it."""

    directory: Path
    config: dict[str, Any]
    root: Path = ROOT
    arguments: list[str] = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        (self.directory / "my.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        snakefile = str(self.root / "Snakefile")
        return [*SNAKEMAKE, "-s", snakefile, "--configfile", "my.yaml", "--cores", "2", *self.arguments, *arguments]

    def snakemake(self, *arguments: str, ok: bool = True) -> str:
        """The output of Snakemake. ok: whether it must succeed; else it must fail."""
        process = subprocess.run(
            self.command(*arguments),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=600,
            start_new_session=True,
        )
        output = process.stdout + process.stderr
        assert (process.returncode == 0) == ok, output
        return output

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake in its own process group."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def jobs(self, *arguments: str) -> set[str]:
        """The jobs that a dry run would start, each as `rule wildcards`."""
        return parse_jobs(self.snakemake("-n", *arguments))

    def path(self, name: str) -> Path:
        return self.directory / "results" / name

    def journal_keys(self, stage: str) -> list[str]:
        """Keys in the journals of a stage, in the order of their lines."""
        files = sorted((self.directory / "results" / "journal" / stage).rglob("*.jsonl"))
        lines = [line for file in files for line in file.read_bytes().splitlines() if line.strip()]
        return [json.loads(line.partition(b" ")[2])["key"] for line in lines]

    def outputs(self) -> dict[str, bytes]:
        """Content of the result files by name, without journals."""
        base = self.directory / "results"
        files = (path for path in base.rglob("*") if path.is_file() and "journal" not in path.relative_to(base).parts)
        return {str(path.relative_to(base)): path.read_bytes() for path in files}


def parse_jobs(output: str) -> set[str]:
    """The jobs in the output of a dry run."""
    jobs = set()
    for block in re.split(r"\n(?=(?:local)?rule \w+:)", output)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)[1]
        wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
        values = re.findall(r"\w+=([^,]+)", wildcards[1]) if wildcards else []
        jobs.add(" ".join([rule, *values]))
    return jobs
