"""The configuration: the shipped one is right as it is, and every slip gets one sentence."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from arena_cje import config_docs, targets
from arena_cje.config import find, parse
from arena_cje.errors import UserError

SHIPPED = yaml.safe_load(Path("config/config.yaml").read_text())


@pytest.fixture
def raw():
    return copy.deepcopy(SHIPPED)


def refused(raw) -> str:
    with pytest.raises(UserError) as error:
        parse(raw)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_shipped_configuration_is_right(raw):
    config = parse(raw)
    assert config.targets == ("clone", "unhelpful", "parallel_universe_prompt", "concise", "cool")
    assert config.policies["clone"].sampling == config.policies["base"].sampling
    assert config.policies["cool"].context == config.policies["base"].context


def test_policies_that_differ_by_temperature_share_a_context(raw):
    config = parse(raw)
    assert config.samplings("smollm2-helpful") == [
        {"temperature": 0.9, "top_p": 1.0},
        {"temperature": 1.0, "top_p": 1.0},
    ]
    assert len(config.contexts) == 4


def test_coverages_may_be_written_as_numbers(raw):
    raw["coverages"] = [0.05, 0.1, 1.0]
    assert parse(raw).coverages == ["0.05", "0.1", "1.0"]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("n_promts",), 3, "unknown key `n_promts` (did you mean 'n_prompts'?)"),
        (
            ("policies", "clone", "temprature"),
            1,
            "unknown key `policies.clone.temprature` (did you mean 'temperature'?)",
        ),
        (("oracle", "covrage"), 1, "unknown key `oracle.covrage`"),
        (("base_policy",), "bse", "base policy 'bse' is not under `policies` (did you mean 'base'?)"),
        (
            ("policies", "clone", "like"),
            "bas",
            "policy 'clone' is like 'bas', which is not under `policies` (did you mean 'base'?)",
        ),
        (("policies", "base", "like"), "clone", "in a circle"),
        (("policies", "clone", "model"), "smollm", "which is not under `models` (did you mean 'smollm2'?)"),
        (("policies", "base", "temperature"), 0, "temperature 0"),
        (("policies", "clone", "max_tokens"), 16, "give both the same `max_tokens`"),
        (("policies", "clone", "top_p"), 0, "greater than 0, got 0"),
        (("policies", "my policy"), {"like": "base"}, "a name starts with a letter"),
        (("estimators",), ["calibrated-isp"], "unknown estimator 'calibrated-isp' (did you mean 'calibrated-ips'?)"),
        (("coverages",), ["0.10"], "coverage_0.1"),
        (("coverages",), ["1.5"], "(0, 1]"),
        (("coverages",), [0], "(0, 1]"),
        (("models", "smollm2", "path"), "x.gguf", "not both or neither"),
        (("n_prompts",), 0, "greater than or equal to 1, got 0"),
        (("fresh_draws",), "folder", "without `logged_data`"),
        (("judge",), None, "`judge` is missing"),
        (("verdict",), {"few_lables": 3}, "few_lables"),
    ],
)
def test_a_slip_gets_one_sentence(raw, path, value, sentence):
    block = raw
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    assert sentence in refused(raw)


def test_own_data_needs_no_policies():
    config = parse({"logged_data": "mine.jsonl", "coverages": ["0.1"]})
    assert config.policies == {}


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("results/coverage_0.10/calibrated-ips.json", "write coverage_0.1"),
        ("results/coverage_2/calibrated-ips.json", "(0, 1]"),
        ("results/coverage_0.1/calibrated-isp.json", "did you mean 'calibrated-ips'?"),
        ("results/responses/clon.jsonl", "unknown policy 'clon' (did you mean 'clone'?)"),
        ("results/coverage_0.1/fresh_draws/clon.jsonl", "unknown policy 'clon'"),
    ],
)
def test_a_target_that_cannot_be_made_gets_one_sentence(raw, target, sentence):
    with pytest.raises(UserError, match=".") as error:
        targets.check([target], parse(raw))
    assert sentence in str(error.value)


def test_targets_that_can_be_made_pass(raw):
    targets.check(
        ["results/coverage_0.33/raw-ips.csv", "results/coverage_0.1/validation.csv", "results/prompts.jsonl", "all"],
        parse(raw),
    )


def test_files_are_found_in_the_working_directory_first(tmp_path, monkeypatch):
    resources = Path("resources").absolute()
    monkeypatch.chdir(tmp_path)
    assert find("helpful.txt", "policies", workflow_resources=resources) == resources / "policies" / "helpful.txt"
    (tmp_path / "helpful.txt").write_text("Mine.")
    assert find("helpful.txt", "policies", workflow_resources=resources) == Path("helpful.txt")
    with pytest.raises(UserError, match="did you mean 'helpful.txt'"):
        find("helpfull.txt", "policies", workflow_resources=resources)


def test_results_that_are_a_file_are_refused(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(UserError, match="is a file"):
        targets.check_writable(tmp_path / "results")


def test_the_documents_of_the_configuration_are_up_to_date():
    hint = "run python -m arena_cje.config_docs"
    assert config_docs.readme() == config_docs.README.read_text(), hint
    assert config_docs.schema() == config_docs.SCHEMA.read_text(), hint


def test_every_knob_is_in_the_shipped_file():
    def keys(block, prefix=""):
        for key, value in block.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict) and key not in ("models", "policies", "verdict"):
                yield from keys(value, f"{prefix}{key}.")

    documented = {name for name, _, _ in config_docs._keys(config_docs.Config, "") if ".NAME." not in name}
    assert documented <= set(keys(SHIPPED))
