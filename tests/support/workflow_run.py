"""Runs of the real workflow in a folder of their own, on a tiny random model: real Snakemake, real llama.cpp, in seconds."""

from __future__ import annotations

import json
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
OWN = ("Snakefile", "workflow", "config", "profiles", "resources", "envs")

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
    """Prompts with references that random letters meet now and then."""
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
    """A copy of all that makes the workflow, to be edited."""
    destination.mkdir(parents=True)
    for name in OWN:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("*.gguf", "__pycache__", "*.egg-info", ".fetch-*")
            shutil.copytree(source, destination / name, ignore=ignored)
        else:
            shutil.copy2(source, destination / name)
    return destination


@dataclass
class Run:
    """One working directory with its configuration; `root` is the workflow it runs."""

    directory: Path
    config: dict[str, Any]
    root: Path = ROOT
    arguments: list[str] = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        (self.directory / "my.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        snakefile = str(self.root / "Snakefile")
        return [*SNAKEMAKE, "-s", snakefile, "--configfile", "my.yaml", "--cores", "2", *self.arguments, *arguments]

    def snakemake(self, *arguments: str, ok: bool = True) -> str:
        """Run Snakemake to the end; its output. `ok`: whether it must succeed (or must fail)."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=600,
            start_new_session=True,
        )
        said = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, said
        return said

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def jobs(self, *arguments: str) -> set[str]:
        """What a dry run says is to be done, each job as `rule wildcards`."""
        return parse_jobs(self.snakemake("-n", *arguments))

    def path(self, name: str) -> Path:
        return self.directory / "results" / name

    def journal_keys(self, stage: str) -> list[str]:
        """Keys in the journals of a stage, in the order they were appended."""
        files = sorted((self.directory / "results" / "journal" / stage).rglob("*.jsonl"))
        lines = [line for file in files for line in file.read_bytes().splitlines() if line.strip()]
        return [json.loads(line.partition(b" ")[2])["key"] for line in lines]

    def outputs(self) -> dict[str, bytes]:
        """Result files by name, journals left out."""
        base = self.directory / "results"
        files = (path for path in base.rglob("*") if path.is_file() and "journal" not in path.relative_to(base).parts)
        return {str(path.relative_to(base)): path.read_bytes() for path in files}


def parse_jobs(said: str) -> set[str]:
    """Jobs of a dry run's output."""
    found = set()
    for block in re.split(r"\n(?=(?:local)?rule \w+:)", said)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)[1]
        wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
        values = re.findall(r"\w+=([^,]+)", wildcards[1]) if wildcards else []
        found.add(" ".join([rule, *values]))
    return found
