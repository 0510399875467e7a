"""Own estimators and covariates from files of the user: in the library, in a run, and wrong files as one sentence."""

from __future__ import annotations

import re

import pytest

import arena_cje
from arena_cje import estimators
from arena_cje.config import plugins
from arena_cje.data import fields
from arena_cje.errors import UserError
from own_data import write_world
from workflow_run import ROOT, Run

PAGE = (ROOT / "docs" / "estimators.md").read_text()
EXAMPLE = re.search(r"```python\n(\"\"\"Weights cut.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture(autouse=True)
def unregister_plugins(monkeypatch):
    """Files that a test registers are not registered in the next."""
    monkeypatch.setattr(estimators, "NAMES", estimators.SHIPPED)
    monkeypatch.setattr(estimators, "_added", {})
    monkeypatch.setattr(fields, "_own_covariates", {})
    yield
    estimators.needs.cache_clear()
    estimators.load_file.cache_clear()


@pytest.fixture
def example(tmp_path):
    path = tmp_path / "truncated_ips.py"
    path.write_text(EXAMPLE)
    return path


def test_the_documented_truncated_estimator_is_close_to_snips_and_has_an_interval(example, tmp_path):
    plugins.register([str(example)])
    truth = write_world(tmp_path)
    own, plain = (arena_cje.analyze(tmp_path / "mine.jsonl", estimator=name) for name in ("truncated-ips", "snips"))
    assert own.name == "truncated-ips" and own.policies == plain.policies
    assert abs(own.estimates[0] - plain.estimates[0]) < 0.1
    low, high = own.confidence_intervals[0]
    assert low < own.estimates[0] < high
    assert abs(own.estimates[0] - truth[own.policies[0]]) < 4 * own.standard_errors[0]


def test_the_documented_covariate_is_computed_from_prompt_and_response(example, tmp_path):
    plugins.register([str(example)])
    row = {"prompt": "Why?", "response": "Why not? Or what?"}
    assert fields.covariates_of(row, ["questions"], "line 1") == (2.0,)
    with pytest.raises(UserError, match="line 1: covariate 'questions' is computed from `prompt` and `response`"):
        fields.covariates_of({"prompt": "Why?"}, ["questions"], "line 1")


def test_a_run_uses_the_files_of_its_configuration_and_a_change_makes_its_results_stale(example, tmp_path):
    write_world(tmp_path)
    config = {
        "logged_data": "mine.jsonl",
        "plugins": ["truncated_ips.py"],
        "coverages": ["0.5"],
        "estimators": ["truncated-ips", "ips"],
        "variants": {"own-covariate": {"estimator": "ips", "calibration": "two_stage", "covariates": ["questions"]}},
    }
    run, targets = (
        Run(tmp_path, config),
        [f"results/coverage_0.5/{name}.json" for name in ("truncated-ips", "own-covariate")],
    )
    example.write_text(EXAMPLE.replace('response.count("?")', "len(response) + len(prompt) % 3"))
    run.snakemake(*targets)
    assert arena_cje.load(run.path("coverage_0.5/truncated-ips.json")).name == "truncated-ips"
    assert run.jobs(*targets) == set()
    example.write_text(EXAMPLE.replace("0.99", "0.9"))
    assert "estimate 0.5 truncated-ips" in run.jobs(*targets)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("other.py", "x = 1\n", "contains neither an estimator .* nor a covariate"),
        ("ips.py", EXAMPLE, "an estimator cannot have the name 'ips'"),
        ("my_ips.py", EXAMPLE.replace("NEEDS", "NEED"), "expected a line such as NEEDS"),
        ("my_ips.py", EXAMPLE.replace('"log_ratio",)', '"weights",)'), "expected a line such as NEEDS"),
    ],
)
def test_a_wrong_plugin_file_is_refused_with_one_sentence(name, source, message, tmp_path):
    (tmp_path / name).write_text(source)
    with pytest.raises(UserError, match=message):
        plugins.register([str(tmp_path / name)])


def test_a_plugin_file_that_raises_is_refused_with_one_sentence(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("NEEDS = ()\nimport nothing_of_this_name\n\ndef estimate(sample, options):\n    return 1\n")
    plugins.register([str(path)])
    with pytest.raises(UserError, match=r"broken.py: cannot be run: ModuleNotFoundError: No module named 'nothing_of"):
        estimators.get("broken")
