"""Configurations of models behind APIs that are refused before the first request: missing keys, parameters that requests set."""

from __future__ import annotations

import re

import pytest
import yaml

from arena_cje.config import parse as config_parse
from arena_cje.config import records as config_records
from arena_cje.errors import UserError
from arena_cje.grading import plan
from workflow_run import ROOT, Run

SHIPPED = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
UNUSED_ADDRESS = "http://127.0.0.1:9"  # the port of the discard service, where usually nothing listens
HOSTED = {
    "providers": {"first": {"base_url": UNUSED_ADDRESS, "api_key_env": "FIRST"}, "second": {"api_key_env": "SECOND"}},
    "policies": {"base": {"provider": "first", "model": "any"}, "other": {"like": "base", "temperature": 0.5}},
    "judge": {"provider": "second", "model": "any", "rubric": "rating.yaml"},
    "estimators": ["direct"],
}


def parse(**changes) -> config_records.Config:
    own = HOSTED | changes
    merged = {key: {**SHIPPED[key], **value} if key in ("judge", "oracle") else value for key, value in own.items()}
    return config_parse.parse(SHIPPED | merged, user_keys=own)


@pytest.mark.parametrize("name", ["model", "messages", "max_tokens", "seed", "n", "stream", "top_logprobs"])
def test_an_extra_parameter_that_the_workflow_sets_itself_is_refused(name):
    policies = {**HOSTED["policies"], "third": {"like": "base", "extra": {name: 1}}}
    with pytest.raises(UserError, match=rf"`policies.third.extra.{name}` is not allowed: .*; leave it out"):
        parse(policies=policies)


@pytest.mark.parametrize("name", ["api_key", "Authorization", "extra_headers", "x-api-key", "token"])
def test_an_api_key_among_extra_parameters_is_refused_and_not_printed(name):
    with pytest.raises(UserError, match="`judge.extra.*looks like an API key") as error:
        parse(judge=HOSTED["judge"] | {"extra": {name: "sk-verysecret"}})
    assert "verysecret" not in str(error.value)


def test_other_extra_parameters_of_an_api_are_accepted():
    extra = {"reasoning_effort": "low", "prompt_cache_key": "a", "service_tier": "flex"}
    assert parse(judge=HOSTED["judge"] | {"extra": extra}).judge.extra == extra


def test_a_hosted_judge_does_not_inherit_the_model_of_the_shipped_judge():
    with pytest.raises(UserError, match="`judge.model` is missing; set its name at provider 'second'"):
        parse(judge={"provider": "second", "rubric": "rating.yaml"})


def test_a_missing_key_ends_a_run_before_its_first_job(tmp_path, monkeypatch):
    """The judge's key is missing: no response is requested, since it would be paid for in vain."""
    monkeypatch.setenv("FIRST", "there")
    monkeypatch.setenv("SECOND", " ")
    run = Run(tmp_path, HOSTED | {"n_prompts": 2})
    output = run.snakemake("results/judge/base.jsonl", ok=False)
    assert (
        "ERROR environment variables without an API key: SECOND (provider 'second')" in output and "FIRST" not in output
    )
    assert not run.path("prompts").exists()


def test_the_archive_of_a_run_has_the_templates_and_rubrics_that_it_uses(tmp_path):
    own = HOSTED | {"providers": {**HOSTED["providers"], "first": {"api": "fireworks", "base_url": UNUSED_ADDRESS}}}
    own["policies"] = {"base": {**HOSTED["policies"]["base"], "template": "chatml.yaml"}, "other": {"like": "base"}}
    output = Run(tmp_path, own | {"n_prompts": 2, "coverages": ["1.0"]}).snakemake("-n", "results/archive.zip")
    (inputs,) = re.findall(r"rule archive:\n +input: (.*)", output)
    assert "templates/chatml.yaml" in inputs and "judges/rating.yaml" in inputs


def test_an_api_key_is_sent_only_to_the_address_that_it_is_for():
    judge = HOSTED["judge"] | {"provider": "first", "base_url": "http://127.0.0.1:1/v1"}
    elsewhere, named = parse(judge=judge), parse(judge=judge | {"api_key_env": "OTHER"})
    assert elsewhere.endpoint(elsewhere.judge).api_key_env is None
    assert named.endpoint(named.judge).api_key_env == "OTHER"
    assert named.endpoint(named.policies["base"]).api_key_env == "FIRST"


def test_the_provenance_of_an_ensemble_names_its_members_and_no_model():
    judges = {"one": HOSTED["judge"], "two": HOSTED["judge"] | {"model": "other"}}
    config = parse(judge={"ensemble": ["one", "two"]}, judges=judges)
    graders = plan.graders(config, lambda name, kind: str(ROOT / "resources" / kind / name))
    assert graders["judge"].provenance == {"ensemble": ("one", "two"), "uncertainty": "deterministic"}
    assert graders["judges/two"].provenance["model"] == "other"
