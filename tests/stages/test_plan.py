"""The parameters that determine responses, log probabilities and a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena_cje.config.records import Config
from arena_cje.data.prompt_sets.pool import Pool
from arena_cje.grading import plan as grading_plan
from arena_cje.hosted import writer
from arena_cje.llama import generator, scorer
from arena_cje.stages import plan
from workflow_run import ROOT

CONFIG = {
    "models": {"small": {"path": "small.gguf"}},
    "providers": {"api": {"base_url": "http://127.0.0.1:1", "completions": True}},
    "policies": {
        "base": {"model": "small", "system_prompt": "helpful.txt"},
        "cool": {"model": "small", "system_prompt": "helpful.txt", "temperature": 0.8},
        "other": {"model": "small"},
        "large": {"provider": "api", "model": "l", "template": "chatml.yaml"},
    },
    "judge": {"model": "small"},
    "draws_per_prompt": 3,
    "coverages": ["0.1", "0.5"],
}


def configuration(**changes) -> Config:
    return Config.model_validate(CONFIG | changes)


def test_a_local_response_depends_on_the_engine_and_a_hosted_one_on_the_request():
    local, hosted = (plan.generation_parameters(configuration(), name) for name in ("other", "large"))
    assert local["version"] == generator.VERSION and local["draws"] == 3 and local["n_ctx"] == 2048
    assert hosted["version"] == writer.VERSION and hosted["request"]["base_url"] == "http://127.0.0.1:1"
    assert plan.generation_parameters(configuration(), "base")["draws"] == 1


def test_scoring_depends_on_the_samplings_and_only_the_bases_context_has_its_sampling():
    own, other = (plan.scoring_parameters(configuration(), name) for name in ("small-helpful", "small-none"))
    assert [sampling["temperature"] for sampling in own["samplings"]] == [0.8, 1.0]
    assert own["drawn_from"] == {"temperature": 1.0, "top_p": 1.0} and other["drawn_from"] is None
    assert own["version"] == scorer.VERSION
    hosted = plan.scoring_parameters(configuration(), "api-l-none")
    assert hosted["request"]["echo_max_tokens"] == 1 and hosted["version"] == writer.VERSION


@pytest.mark.parametrize("key", ["max_concurrency", "timeout", "max_attempts", "api_key_env"])
def test_settings_of_how_an_api_is_called_change_no_parameters(key):
    other = {"max_concurrency": 2, "timeout": 3.0, "max_attempts": 4, "api_key_env": "KEY"}[key]
    changed = configuration(providers={"api": CONFIG["providers"]["api"] | {key: other}})
    assert plan.generation_parameters(changed, "large") == plan.generation_parameters(configuration(), "large")
    assert plan.scoring_parameters(changed, "api-l-none") == plan.scoring_parameters(configuration(), "api-l-none")


def test_the_provenance_of_a_data_set_has_prompts_policies_oracle_judge_and_versions():
    config = configuration()
    graders = grading_plan.graders(config, lambda name, kind: str(ROOT / "resources" / kind / name))
    summary = {"source": "prompts/default.jsonl", "revision": None, "n_rows": 9, "n_eligible": 8}
    provenance = plan.dataset_provenance(config, graders, Pool(Path("prompts.jsonl"), summary, identity="0"))
    assert provenance["prompts"] == summary
    assert (
        provenance["policies"]["large"]["asked"]["model"] == "l"
        and provenance["policies"]["large"]["template"] == "chatml.yaml"
    )
    assert provenance["policies"]["base"]["context"] == "small-helpful"
    assert provenance["oracle"] == {"provider": "reference", "target_labels": 0.0}
    assert set(provenance["versions"]["score"]) == {"small-helpful", "small-none", "api-l-none"}
    assert provenance["judge"]["rubric"] == "likelihood.yaml" and "api_key_env" not in provenance["judge"]


def test_labels_of_each_coverage_extend_those_of_the_next_lower_coverage():
    config = configuration(oracle={"target_labels": 0.25})
    assert config.label_coverages("base") == ["0.1", "0.5", "1.0"]
    assert config.label_coverages("other") == ["0.25", "1.0"]
    assert [config.lower_coverage("base", step) for step in ("0.1", "0.3", "1.0")] == [None, "0.1", "0.5"]
    assert config.lower_coverage("other", "1.0") == "0.25"
    none = configuration(oracle={"truth": "none"})
    assert none.label_coverages("other") == [] and none.lower_coverage("base", "0.5") == "0.1"


def test_local_models_are_those_that_a_job_loads():
    assert configuration().local_models == ["small"]
    assert (
        configuration(
            judge={"provider": "api", "model": "l"}, policies={"base": CONFIG["policies"]["large"]}
        ).local_models
        == []
    )
