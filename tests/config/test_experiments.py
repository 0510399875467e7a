"""The shipped experiments as configurations: their files exist, all are local at smoke size, and their prices are known."""

from __future__ import annotations

import re

import pytest
import yaml

from arena_cje.config import parse
from arena_cje.config.records.values import LOCAL
from arena_cje.money import prices
from arena_cje.stages import plan
from workflow_run import ROOT

FOLDER = ROOT / "config" / "experiments"
EXPERIMENTS = sorted(path.stem for path in FOLDER.glob("*.yaml") if "smoke" not in path.stem)
SHIPPED = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
DEFAULT_MODEL = SHIPPED["models"]["smollm2"]["file"]


def merged(below: dict, on_top: dict) -> dict:
    """Keys of a second configuration on top of the first, as Snakemake merges its files."""
    both = below.keys() & on_top.keys()
    blocks = {key for key in both if isinstance(below[key], dict) and isinstance(on_top[key], dict)}
    return below | on_top | {key: merged(below[key], on_top[key]) for key in blocks}


def configuration(*names: str):
    own: dict = {}
    for name in names:
        own = merged(own, yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    return parse.parse(merged(SHIPPED, own), user_keys=own)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_file_that_an_experiment_names_is_shipped(name):
    config = configuration(name)
    resources = ROOT / "resources"
    graders = [config.judge, *config.judges.values(), config.oracle]
    names = [("policies", policy.system_prompt) for policy in config.policies.values()]
    names += [("templates", block.template) for block in (*config.policies.values(), *graders) if block.template]
    names += [("judges", grader.rubric) for grader in graders]
    for kind, file in names:
        assert (resources / kind / file).is_file(), file


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_at_smoke_size_every_model_runs_on_this_machine(name):
    config = configuration(name, "smoke")
    for place, block in config.model_blocks.items():
        if block.hosted:
            endpoint = config.endpoint(block)
            assert re.match(r"http://127\.0\.0\.1(:|/)", endpoint.base_url), place
            assert endpoint.api_key_env is None, place
        elif block.provider == LOCAL:
            assert config.models[block.model].file == DEFAULT_MODEL, place
    assert config.n_prompts <= 60 and config.prompts.source == SHIPPED["prompts"]["source"]
    assert all(policy.template in (None, "chatml.yaml") for policy in config.policies.values())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_hosted_model_has_a_price(name):
    prices.check_budget(configuration(name).model_copy(update={"budget_usd": 1.0}))


def test_a_plan_without_a_hub_token_uses_placeholder_prompts_of_usual_length(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    config = configuration("arena-simplified").model_copy(update={"n_prompts": 10})
    monkeypatch.setattr(plan.hub, "has_token", lambda: False)
    pool = plan.prompt_pool(config, None, tmp_path, makes_results=False)
    lengths = [len(row["prompt"]) for row in pool.rows(10)]
    assert len(lengths) == 10 and sum(lengths) == pytest.approx(1380, abs=10)
    assert "HF_TOKEN" in pool.note and "lmsys/chatbot_arena_conversations" in pool.note


def test_a_number_of_draws_of_one_policy_replaces_the_number_for_all_policies():
    config = configuration("arena-production")
    assert [config.draws(name) for name in ("base", "clone", "premium")] == [1, 1, 10]
