"""The reader of the public package cje-eval reads the workflow's files unchanged, with the same contents.

The package is installed in an environment of its own, whose interpreter `CJE_EVAL_PYTHON` names. As its folder of fresh
draws it gets the folder of a coverage, in which it finds `fresh_draws/{policy}.jsonl` by itself.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from arena_cje.data.write import write_logged
from arena_cje.files import read_jsonl
from benchmarks import _peer
from small_results import TARGETS, write_data
from workflow_run import Run

pytestmark = pytest.mark.skipif(
    _peer.VARIABLE not in os.environ, reason=f"{_peer.VARIABLE} names no interpreter with {_peer.REQUIREMENT}"
)

# A script for that interpreter: the package's readers, the warnings that they log, then its analysis.
READER = """
import json, logging, sys, warnings
from pathlib import Path
import cje
from cje.data import DatasetLoader, JsonlDataSource
from cje.data.fresh_draws import load_fresh_draws_auto

folder, estimators, options = Path(sys.argv[1]), sys.argv[3:], json.loads(sys.argv[2])
complaints = []

class Note(logging.Handler):
    def emit(self, record):
        complaints.append(record.getMessage())

note = Note(logging.WARNING)
logging.getLogger().addHandler(note)
logging.captureWarnings(True)
warnings.simplefilter("always")
data = DatasetLoader().load_from_source(JsonlDataSource(str(folder / "cje_dataset.jsonl")))
output = {
    "n": data.n_samples,
    "policies": data.target_policies,
    "logprobs": [[s.base_policy_logprob, s.target_policy_logprobs] for s in data.samples],
    "scores": [s.judge_score for s in data.samples],
    "labels": [s.oracle_label for s in data.samples],
    "prompts": [s.prompt_id for s in data.samples],
    "draws": {p: [[s.prompt_id, s.judge_score] for s in load_fresh_draws_auto(folder, p).samples]
              for p in data.target_policies},
    "estimates": {},
    "complaints": list(complaints),
}
for name in estimators:
    result = cje.analyze_dataset(
        logged_data_path=str(folder / "cje_dataset.jsonl"), fresh_draws_dir=str(folder), estimator=name,
        estimator_config=options.get(name),
    )
    output["estimates"][name] = dict(zip(result.metadata["target_policies"], map(float, result.estimates)))
print(json.dumps(output))
"""
ESTIMATORS = ("calibrated-ips", "direct", "dr-cpo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A coverage of a run on your own data: half of the labels, and one response that a target cannot produce."""
    home = write_data(tmp_path_factory.mktemp("run"), n=200)
    rows = read_jsonl(home / "logged.jsonl")
    rows[5]["target_policy_logprobs"]["far"] = -math.inf
    write_logged(home / "logged.jsonl", rows)
    run = Run(home, {"logged_data": "logged.jsonl", "fresh_draws": "draws", "coverages": ["0.5"]})
    run.snakemake("results/coverage_0.5/cje_dataset.jsonl")
    return run.path("coverage_0.5")


@pytest.fixture(scope="module")
def peer_output(folder):
    """The package's reading and analysis of the folder."""
    try:
        interpreter = _peer.python()
    except _peer.Absent as why:
        pytest.skip(str(why))
    script = folder / "read.py"
    script.write_text(READER)
    process = subprocess.run(
        [str(interpreter), str(script), str(folder), json.dumps(_peer.CONFIG), *ESTIMATORS],
        env={**os.environ, **_peer.ONE_THREAD, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_the_package_logs_no_warning_when_it_reads_the_files(peer_output):
    assert peer_output["complaints"] == []


def test_the_package_reads_every_logged_row_unchanged(folder, peer_output):
    rows = read_jsonl(folder / "cje_dataset.jsonl")
    assert peer_output["n"] == len(rows) == 200
    assert peer_output["prompts"] == [row["prompt_id"] for row in rows]
    assert peer_output["scores"] == [row["judge_score"] for row in rows]
    assert peer_output["logprobs"] == [[row["base_policy_logprob"], row["target_policy_logprobs"]] for row in rows]
    assert set(peer_output["policies"]) == set(TARGETS)


def test_the_package_reads_the_labels_of_the_coverage_and_no_others(folder, peer_output):
    assert peer_output["labels"] == [row.get("oracle_label") for row in read_jsonl(folder / "cje_dataset.jsonl")]
    assert sum(label is not None for label in peer_output["labels"]) == 100


def test_the_package_reads_the_fresh_draws_of_every_policy(folder, peer_output):
    for policy in TARGETS:
        rows = read_jsonl(folder / "fresh_draws" / f"{policy}.jsonl")
        assert peer_output["draws"][policy] == [[row["prompt_id"], row["judge_score"]] for row in rows]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_package_computes_an_estimate_for_every_policy(peer_output, name):
    assert set(peer_output["estimates"][name]) == set(TARGETS)
    assert all(0 <= value <= 1 for value in peer_output["estimates"][name].values())


def test_the_package_has_another_interpreter_than_the_tests():
    assert Path(os.environ[_peer.VARIABLE]).absolute() != Path(sys.executable).absolute()
