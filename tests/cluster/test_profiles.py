"""Profiles say what Snakemake knows: an unknown key of a profile is an error at the start of a run on a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser

PROFILES = Path(__file__).parents[2] / "profiles"
NAMES = sorted(path.parent.name for path in PROFILES.glob("*/config.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_an_option_of_snakemake_or_of_the_executor(name):
    profile = yaml.safe_load((PROFILES / name / "config.yaml").read_text(encoding="utf-8"))
    known = {option.removeprefix("--") for action in get_argument_parser()._actions for option in action.option_strings}
    executor = profile.get("executor")
    own = {key for key in profile if executor and key.startswith(f"{executor}-")}
    assert profile.keys() - known - own == set()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "default"])
def test_a_cluster_runs_a_job_again_with_more_and_counts_calls_over_all_nodes(name):
    profile = yaml.safe_load((PROFILES / name / "config.yaml").read_text(encoding="utf-8"))
    assert profile["retries"] >= 1
    assert profile["resources"] == {"api_jobs": 1}
    for resource in ("mem_mb", "runtime"):
        text = profile["default-resources"][resource]
        assert eval(text, {"attempt": 2}) > eval(text, {"attempt": 1}) > 0
