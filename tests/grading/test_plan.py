"""What determines a grade: versions, parameters, ensembles, and the scores that a judge need not compute again."""

from __future__ import annotations

import pytest

from arena_cje.config.records import Config
from arena_cje.grading import hosted, plan, reference, rubrics
from arena_cje.llama import generator, scorer
from workflow_run import ROOT

POLICIES = {
    "base": {"model": "small", "system_prompt": "helpful.txt"},
    "other": {"model": "small", "system_prompt": "concise.txt"},
}
LOCAL = {"model": "small"}
API = {"provider": "api", "model": "large", "rubric": "rating.yaml"}


def find(name: str, kind: str) -> str:
    """The path of a shipped file."""
    return str(ROOT / "resources" / kind / name)


def grader_plans(**changes) -> dict[str, plan.GraderPlan]:
    config = {
        "models": {"small": {"path": "small.gguf"}},
        "policies": POLICIES,
        "providers": {"api": {"base_url": "http://127.0.0.1:1"}},
        "judge": LOCAL,
    }
    return plan.graders(Config.model_validate(config | changes), find)


@pytest.mark.parametrize(
    ("rubric", "engine"),
    [("likelihood", scorer.VERSION), ("helpfulness", scorer.VERSION), ("rating", generator.VERSION)],
)
def test_a_local_grade_has_the_versions_of_its_rubric_kind_and_of_its_engine(rubric, engine):
    judge = grader_plans(judge=LOCAL | {"rubric": f"{rubric}.yaml"})["judge"]
    assert judge.version == [judge.rubric.VERSION, engine]
    assert judge.is_local and judge.environment == "llama"


def test_a_hosted_grade_and_a_reference_label_have_versions_of_their_own():
    plans = grader_plans(judge=API)
    assert plans["judge"].version == hosted.VERSION
    assert plans["oracle"].version == reference.VERSION
    assert (plans["judge"].environment, plans["oracle"].environment) == ("api", "stats")


def test_an_ensemble_has_the_versions_of_its_members_and_no_rubric_of_its_own():
    plans = grader_plans(judge={"ensemble": ["a", "b"]}, judges={"a": LOCAL, "b": API})
    ensemble = plans["judge"]
    assert ensemble.version == {"a": plans["judges/a"].version, "b": plans["judges/b"].version}
    assert ensemble.parameters["members"] == ["judges/a", "judges/b"]
    assert (ensemble.rubric, ensemble.rubric_file, ensemble.max_unscored) == (None, None, None)


@pytest.mark.parametrize(
    ("block", "idle", "at_work"),
    [
        (LOCAL, {"max_tokens": 9, "temperature": 0.5}, None),  # a likelihood samples nothing
        (LOCAL | {"rubric": "helpfulness.yaml"}, {"max_tokens": 9}, {"uncertainty": "distribution"}),
        (LOCAL | {"rubric": "rating.yaml"}, {"api_key_env": None}, {"max_tokens": 9}),
        (API, {"max_unscored": 0.5}, {"max_tokens": 9}),
        (API, {"api_key_env": "ANOTHER"}, {"extra": {"top_k": 3}}),
        (API, {}, {"base_url": "http://127.0.0.1:2"}),
        (API | {"rubric": "helpfulness.yaml"}, {"max_tokens": 9}, {"temperature": 0.5}),
    ],
)
def test_only_parameters_that_a_rubric_kind_uses_make_its_grades_stale(block, idle, at_work):
    before = grader_plans(judge=block)["judge"].parameters
    assert grader_plans(judge=block | idle)["judge"].parameters == before
    if at_work:
        assert grader_plans(judge=block | at_work)["judge"].parameters != before


def test_a_likelihood_judge_reuses_log_probabilities_of_its_own_scoring_context():
    judge = grader_plans()["judge"]  # likelihood.yaml has the base's system prompt
    assert judge.scored_context("base") == "small-helpful"
    assert judge.scored_context("other") is None  # its responses are not scored
    warm = {name: policy | {"temperature": 0.9} for name, policy in POLICIES.items()}
    assert grader_plans(policies=warm)["judge"].scored_context("base") is None
    assert grader_plans(judge=LOCAL | {"rubric": "rating.yaml"})["judge"].scored_context("base") is None


def test_limits_of_unscored_answers_exist_for_members_and_not_for_their_ensemble():
    plans = grader_plans(judge={"ensemble": ["a", "b"]}, judges={"a": LOCAL, "b": API | {"max_unscored": 0.2}})
    assert plan.limits(plans) == {"judges/a": 0.05, "judges/b": 0.2}


def test_files_that_grades_depend_on_are_listed_once():
    plans = grader_plans(judge=API, judges={"same": API, "own": LOCAL})
    names = sorted(file.rsplit("/", 1)[1] for file in plan.text_files(plans))
    assert names == ["helpful.txt", "likelihood.yaml", "rating.yaml"]


@pytest.mark.parametrize("kind", rubrics.NAMES)
def test_each_rubric_kind_is_defined_in_the_module_of_its_name(kind):
    rubric = rubrics.get(kind)
    assert rubric.__module__.endswith(f".{kind}")
    assert rubric.VERSION >= 1 and rubric.ENGINE in plan.ENGINES
