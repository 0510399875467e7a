"""Profiles have only keys that Snakemake knows: an unknown one is an error at the start of a run on a cluster."""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser

import object_store
import tiny_gguf
from workflow_run import CONFIG, ROOT, write_prompts

PROFILES = Path(__file__).parents[2] / "profiles"
# A Python that has the plugins of the Kubernetes profile: `bash tests/cluster/run.sh` installs one.
KUBERNETES = os.environ.get("ARENA_KUBERNETES_PYTHON") or (
    sys.executable if importlib.util.find_spec("snakemake_executor_plugin_kubernetes") else None
)
NAMES = sorted(path.parent.name for path in PROFILES.glob("*/config.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_an_option_of_snakemake_or_of_the_executor(name):
    profile = yaml.safe_load((PROFILES / name / "config.yaml").read_text(encoding="utf-8"))
    known = {option.removeprefix("--") for action in get_argument_parser()._actions for option in action.option_strings}
    executor = profile.get("executor")
    own = {key for key in profile if executor and key.startswith(f"{executor}-")}
    assert profile.keys() - known - own == set()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "default"])
def test_a_cluster_profile_retries_jobs_with_more_memory_and_time_and_limits_api_jobs(name):
    profile = yaml.safe_load((PROFILES / name / "config.yaml").read_text(encoding="utf-8"))
    assert profile["retries"] >= 1
    assert profile["resources"] == {"api_jobs": 1}
    for resource in ("mem_mb", "runtime"):
        text = profile["default-resources"][resource]
        assert eval(text, {"attempt": 2}) > eval(text, {"attempt": 1}) > 0


@pytest.mark.skipif(
    KUBERNETES is None, reason="no Kubernetes plugin: `bash tests/cluster/run.sh` installs one for the test"
)
def test_a_plan_for_kubernetes_takes_all_input_files_of_its_jobs_from_the_bucket(tmp_path):
    tiny_gguf.write(tmp_path / "tiny.gguf", spread=8.0)
    write_prompts(tmp_path / "prompts.jsonl", 24)
    for name in ("policies/helpful.txt", "judges/likelihood.yaml"):
        shutil.copy2(ROOT / "resources" / name, tmp_path)
    (tmp_path / "other.txt").write_text("Answer with other words.")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(copy.deepcopy(CONFIG)))
    keys = {f"SNAKEMAKE_STORAGE_S3_{name}_KEY": "none" for name in ("ACCESS", "SECRET")}
    with object_store.serve(tmp_path, "arena-cje") as address:
        plan = subprocess.run(
            [
                *(KUBERNETES, "-m", "snakemake", "-n", "-s", str(ROOT / "Snakefile"), "--configfile", "my.yaml"),
                *("--workflow-profile", str(PROFILES / "kubernetes"), "--storage-s3-endpoint-url", address),
                *("--", "results/coverage_0.5/direct.json"),
            ],
            cwd=tmp_path,
            env=os.environ | keys | {"PYTHONPATH": str(ROOT / "workflow")},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert plan.returncode == 0, plan.stdout + plan.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", plan.stdout + plan.stderr, re.MULTILINE))
    assert {name: counts[name] for name in ("generate", "judge", "score", "estimate")} == {
        "generate": "12",
        "judge": "12",
        "score": "6",
        "estimate": "1",
    }
    inputs = re.findall(r"^ +input: (.*)$", plan.stdout + plan.stderr, re.MULTILINE)
    paths = {path for line in inputs for path in re.findall(r"([^ ,]+\.(?:jsonl|json|gguf|txt|yaml|parquet))", line)}
    # Prompts are split into shards where Snakemake runs; all other inputs come from the bucket.
    assert {path for path in paths if not path.startswith("s3://BUCKET/arena-cje/")} == {
        ".arena-cje/prompts/prompts.jsonl"
    }
