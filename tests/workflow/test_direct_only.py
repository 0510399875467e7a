"""Policies without log probabilities, or with those of another distribution, are estimated by `direct` alone."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import polars as pl
import pytest

import arena_cje
import tiny_gguf
from arena_cje import files
from arena_cje.config import scoring, targets
from arena_cje.config.parse import parse
from arena_cje.data import schemas
from arena_cje.data.dataset import load_logged
from arena_cje.errors import UserError
from arena_cje.report import exports, figures, tidy
from arena_cje.results.schema import check
from arena_cje.stages import assemble
from small_results import analyzed, write_data
from workflow_run import CONFIG, Run, write_prompts

WEIGHTED = ("ips", "snips", "raw-ips", "calibrated-ips", "dr-cpo", "mrdr", "tmle", "tr-cpo", "stacked-dr")
SCORES = {"provider": "fireworks", "model": "llama", "template": "llama-3.yaml", "system_prompt": "helpful.txt"}
LOCAL = {"provider": "llama_cpp", "model": "small", "system_prompt": "helpful.txt"}
CHAT = {"provider": "openai", "model": "gpt"}


def experiment(base, more=None, **policies):
    return parse(
        {
            "models": {"small": {"path": "small.gguf"}},
            "providers": {"openai": {}, "fireworks": {"api": "fireworks"}, "vllm": {"completions": True}},
            "policies": {"base": base, **policies},
            "judge": {"model": "small"},
        }
        | (more or {})
    )


def codes(config, policy):
    return [code for code, _, _ in scoring.cautions(config).get(policy, [])]


@pytest.mark.parametrize(
    ("policy", "can"),
    [
        (LOCAL, True),
        (SCORES, True),
        (SCORES | {"template": None}, False),
        (CHAT, False),
        (CHAT | {"template": "chatml.yaml"}, False),  # a template does not help where the provider has no echo
        (CHAT | {"provider": "vllm", "template": "chatml.yaml"}, True),
    ],
)
def test_a_policy_has_log_probabilities_if_its_provider_can_score_text_of_its_template(policy, can):
    config = experiment(LOCAL, other=policy)
    assert config.has_logprobs("other") is can
    assert config.policies_with_logprobs == (("base", "other") if can else ("base",))
    assert ("other" in {name for name in config.policies if config.policies[name].context in config.contexts}) is can


def test_a_target_without_log_probabilities_gets_a_note_and_a_refusal_with_its_provider():
    config = experiment(SCORES, clone=SCORES, chats=CHAT, bare=SCORES | {"template": None})
    assert scoring.notes(config) == [
        f"only `direct` can estimate policy 'chats': {scoring.cautions(config)['chats'][0][1]}",
        f"only `direct` can estimate policy 'bare': {scoring.cautions(config)['bare'][0][1]}",
    ]
    (code, sentence, level), *more = scoring.cautions(config)["chats"]
    assert (code, level, more) == ("no_log_probabilities", "refuse", [])
    assert "'openai'" in sentence
    assert "no `template`, without which provider 'fireworks'" in scoring.cautions(config)["bare"][0][1]
    assert "clone" not in scoring.cautions(config)
    assert config.can_run("snips")


@pytest.mark.parametrize("base", [CHAT, LOCAL | {"temperature": 0}])
def test_with_a_base_policy_without_log_probabilities_only_direct_can_run(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["direct"] if base["provider"] == "llama_cpp" else [*WEIGHTED, "direct"]
    config = experiment(base, {"estimators": names}, near=LOCAL, far=SCORES)
    assert (config.policies_with_logprobs, config.contexts, config.samplings("small-helpful")) == ((), {}, [])
    assert [name for name in (*WEIGHTED, "direct") if config.can_run(name)] == ["direct"]
    (note,) = scoring.notes(config)
    assert note.startswith("only `direct` can estimate the policies: base policy 'base'")
    assert all(name in note for name in names if name != "direct")
    targets.check(["results/coverage_0.1/direct.json"], config)
    for name in ("snips", "dr-cpo"):
        with pytest.raises(
            UserError, match=f"estimator '{name}' needs log probabilities of .* none can be computed under 'base'"
        ):
            targets.check([f"results/coverage_0.1/{name}.json"], config)
    with pytest.raises(UserError, match="no log probabilities under policy 'base'"):
        targets.check(["results/logprobs/near.parquet"], config)


def test_a_configuration_whose_estimators_cannot_run_is_refused_with_the_reason():
    with pytest.raises(UserError, match="none of `estimators` can run: snips need .*'base': provider 'openai'"):
        experiment(CHAT, {"estimators": ["snips"]}, other=LOCAL)
    with pytest.raises(UserError, match="can run: snips, ips need .*'other': provider 'openai'"):
        experiment(LOCAL, {"estimators": ["snips", "ips"]}, other=CHAT)
    with pytest.raises(UserError, match="temperature 0"):
        experiment(LOCAL | {"temperature": 0}, {"estimators": ["direct", "snips"]}, other=LOCAL)


def test_own_data_and_local_policies_get_no_notes_and_no_cautions():
    assert scoring.notes(parse({"logged_data": "mine.jsonl"})) == []
    config = experiment(LOCAL, other=LOCAL | {"temperature": 0.5}, greedy=LOCAL | {"temperature": 0})
    assert (scoring.notes(config), scoring.cautions(config)) == ([], {})


def logprobs_match_sampling(policy):
    return policy["provider"] == "llama_cpp" or (policy["temperature"], policy["top_p"]) == (1, 1)


KINDS = [
    kind | {"temperature": temperature, "top_p": top_p}
    for kind, temperature, top_p in product((SCORES, LOCAL), (1, 0.7), (1, 0.9))
]


@pytest.mark.parametrize("base", KINDS)
def test_weights_are_refused_unless_log_probabilities_match_the_sampling(base):
    """A target's API log probabilities are propensities if it samples as the base does, or if neither changes the sampling
    (temperature 1, top_p 1)."""
    others = {f"p{k}": kind for k, kind in enumerate(KINDS)}
    config = experiment(base, **others)
    for name, policy in others.items():
        are_propensities = policy == base or (logprobs_match_sampling(base) and logprobs_match_sampling(policy))
        assert ("api_log_probabilities" in codes(config, name)) is not are_propensities, name
        # A nucleus of the base has a caution of its own, which is added to the other one.
        assert ("support_exceeds_base" in codes(config, name)) is (base["top_p"] < 1 and policy != base), name


@pytest.mark.parametrize(
    ("extra", "changes_sampling"),
    [
        ({"top_k": 40}, True),
        ({"repetition_penalty": 1.1}, True),
        ({"stop_token_ids": [7]}, True),
        ({"response_format": {"type": "json_object"}}, True),
        ({"ignore_eos": False, "min_tokens": 0}, False),
        ({"top_k": 0, "frequency_penalty": 0.0}, False),
        ({"service_tier": "flex"}, False),
    ],
)
def test_extra_parameters_that_change_the_sampling_distribution_refuse_weights(extra, changes_sampling):
    """Scoring does not apply them. If the base has one, only the log probabilities of its clone are propensities."""
    policy = SCORES | {"model": "other", "extra": extra}
    assert ("api_log_probabilities" in codes(experiment(SCORES, other=policy), "other")) is changes_sampling
    config = experiment(policy, clone=policy, other=SCORES)
    assert codes(config, "clone") == []
    assert ("api_log_probabilities" in codes(config, "other")) is changes_sampling


def test_log_probabilities_that_are_no_propensities_are_missing_in_exports():
    config = experiment(SCORES, clone=SCORES, cooler=SCORES | {"temperature": 0.7}, cool=LOCAL | {"temperature": 0.7})
    assert scoring.non_propensity(config) == ["cooler"]
    row = {"prompt_id": "q", "base_policy_logprob": -1.0, "judge_score": 0.5, "oracle_label": None}
    row["target_policy_logprobs"] = {"clone": -1.0, "cooler": -2.0, "cool": None}
    (sampler_row,) = exports.sampler_rows(
        exports.without_logprobs([row], scoring.non_propensity(config), "base"), [None]
    )
    assert (sampler_row["total_logprob"], sampler_row["target_logps"]) == (
        -1.0,
        {"clone": -1.0, "cooler": None, "cool": None},
    )
    policy = SCORES | {"top_p": 0.9}
    assert scoring.non_propensity(experiment(policy, clone=policy)) == ["base", "clone"]
    (log_row,) = exports.log_rows(exports.without_logprobs([row], ["base", "clone"], "base"), [None], "base")
    assert (log_row["sequence_logp"], log_row["pi0"]) == (None, None)
    assert scoring.non_propensity(parse({"logged_data": "mine.jsonl"})) == []


def test_an_extra_seed_is_allowed_for_a_judge_and_refused_for_a_policy():
    """With one seed a policy would have the same response for all draws of a prompt; a judge sends one request anyway."""
    with pytest.raises(UserError, match="`policies.other.extra.seed` is not allowed"):
        experiment(LOCAL, other=SCORES | {"extra": {"seed": 1}})
    experiment(LOCAL, {"judge": CHAT | {"rubric": "rating.yaml", "extra": {"seed": 1}}}, other=LOCAL)


def test_only_policies_with_log_probabilities_must_share_max_tokens_and_context_keys():
    experiment(LOCAL | {"max_tokens": 8}, chats=CHAT | {"max_tokens": 99})
    experiment(CHAT | {"max_tokens": 8}, near=LOCAL | {"max_tokens": 9}, far=LOCAL | {"max_tokens": 7})
    with pytest.raises(UserError, match="give both the same `max_tokens`"):
        experiment(LOCAL | {"max_tokens": 8}, far=SCORES | {"max_tokens": 9})
    for change in ({"template": "chatml.yaml"}, {"base_url": "http://127.0.0.1:1/v1"}, {"extra": {"top_k": 5}}):
        with pytest.raises(UserError, match=f"would share the scoring context .* `{next(iter(change))}`"):
            experiment(SCORES, far=SCORES | change)


# Analysis of data in which log probabilities are missing


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def data_without_logprobs(data, tmp_path_factory):
    """Two copies of the data: `one` lacks the log probabilities of `better`, `all` has no log probabilities."""
    folders = {}
    for name, unscored in (("one", ["better"]), ("all", ["base", "same", "better", "near", "far"])):
        rows = schemas.read_jsonl(data / "logged.jsonl")
        for row in rows:
            row["target_policy_logprobs"] |= dict.fromkeys(set(unscored) - {"base"})
            row["base_policy_logprob"] = None if "base" in unscored else row["base_policy_logprob"]
        folders[name] = tmp_path_factory.mktemp(name)
        files.write_jsonl(folders[name] / "logged.jsonl", rows)
        (folders[name] / "draws").symlink_to(data / "draws")
    return folders


@pytest.mark.parametrize("missing", ["one", "all"])
def test_direct_needs_no_log_probability(data, data_without_logprobs, missing):
    full, without = analyzed(data, "direct"), analyzed(data_without_logprobs[missing], "direct")
    assert without.policies == full.policies
    np.testing.assert_array_equal(without.estimates, full.estimates)
    np.testing.assert_array_equal(without.standard_errors, full.standard_errors)
    assert {p: v.level for p, v in without.verdicts.items()} == {p: v.level for p, v in full.verdicts.items()}


@pytest.mark.parametrize("estimator", ["snips", "calibrated-ips", "dr-cpo", "tr-cpo"])
def test_weights_refuse_a_target_without_log_probabilities_and_leave_the_others_unchanged(
    data, data_without_logprobs, estimator
):
    config = experiment(LOCAL, same=LOCAL, better=CHAT, near=LOCAL, far=LOCAL)
    full = analyzed(data, estimator)
    result = analyzed(data_without_logprobs["one"], estimator, cautions=scoring.cautions(config))
    check(result.document, estimator)
    k = result.policies.index("better")
    others = [j for j in range(len(result.policies)) if j != k]
    np.testing.assert_array_equal(result.estimates[others], full.estimates[others])
    assert "no_log_probabilities" in [reason.code for reason in result.verdicts["better"].reasons]
    assert any("'openai'" in sentence for sentence in result.refused["better"]["reasons"])
    assert math.isnan(result.estimates[k])
    assert result.refused["better"]["estimate"] is None


def test_weights_refuse_a_target_whose_log_probabilities_do_not_match_its_sampling(data):
    config = experiment(SCORES, same=SCORES, better=SCORES | {"temperature": 0.7}, near=LOCAL, far=LOCAL)
    result = analyzed(data, "dr-cpo", cautions=scoring.cautions(config))
    assert result.verdicts["better"].reasons[-1].code == "api_log_probabilities"
    assert result.verdicts["better"].level == "refuse"
    assert math.isnan(result.estimates[result.policies.index("better")])
    assert result.refused["better"]["estimate"] is not None
    assert "same" not in scoring.cautions(config)


def test_figures_and_exports_work_without_log_probabilities(data_without_logprobs, tmp_path):
    result = analyzed(data_without_logprobs["all"], "direct")
    logged, _ = load_logged(data_without_logprobs["all"] / "logged.jsonl", reading=result.reading)
    figures.save(figures.weight_distributions(logged), tmp_path / "weights.png")
    assert [panel.n for panel in tidy.weights(logged)[1]] == [0, 0, 0, 0]
    log_rows = list(
        exports.log_rows(*exports.logged_rows(data_without_logprobs["all"] / "logged.jsonl", result), "base")
    )
    assert {(row["sequence_logp"], row["pi0"]) for row in log_rows} == {(None, None)}
    assert all(row["calibrated_reward"] is not None for row in log_rows)


# The join of responses, grades and log probabilities


def response(k, **changes):
    row = {
        "prompt_id": f"q{k}",
        "policy": "base",
        "draw_idx": 0,
        "prompt": "say",
        "response": "said",
        "token_ids": None,
        "finish_reason": "stop",
        "status": "ok",
        "seed": 1,
        "model_sha256": None,
        "model": "gpt-1",
        "system_fingerprint": f"fp{k % 2}",
        "item": f"i{k}",
    }
    return row | changes


def grade(k, score=0.5, **changes):
    row = {"prompt_id": f"q{k}", "draw_idx": 0, "score": score, "reason": None if score is not None else "unreadable"}
    return row | {"reply": "??", "item": f"g{k}"} | changes


def logprob_table(*values):
    return pl.DataFrame(
        {
            "prompt_id": [f"q{k}" for k in range(len(values))],
            "logprob": values,
            "n_boundary": 0,
            "status": ["ok" if value is not None else "empty" for value in values],
        }
    )


def logged(responses, grades, logprobs, **policies):
    tally = assemble.Tally()
    rows = list(assemble.logged_rows(responses, grades, logprobs, tally, **policies))
    return rows, assemble.logged_summary(tally, logprobs, **policies)


def test_logged_rows_are_kept_for_direct_if_the_base_has_no_log_probabilities():
    responses, grades = [response(k) for k in range(3)], {"judge": [grade(k) for k in range(3)]}
    rows, summary = logged(responses, grades, {}, base_policy="base", targets=["b", "a"])
    assert [row["base_policy_logprob"] for row in rows] == [None] * 3
    assert [list(row["target_policy_logprobs"].items()) for row in rows] == [[("b", None), ("a", None)]] * 3
    assert (summary["dropped"], summary["not_scored"]) == ({}, {"b": 3, "a": 3})
    # If the base can be scored, a row without its log probability is of no use to weights and is dropped.
    logprobs = {"base": logprob_table(-1.0, None, -2.0), "a": logprob_table(-1.0, -3.0, None)}
    rows, summary = logged(responses, grades, logprobs, base_policy="base", targets=["b", "a"])
    assert [(row["prompt_id"], row["target_policy_logprobs"]) for row in rows] == [
        ("q0", {"b": None, "a": -1.0}),
        ("q2", {"b": None, "a": None}),
    ]
    assert summary["dropped"] == {"no base log probability": 1}
    assert summary["not_scored"] == {"b": 2, "a": 1}


def test_rows_have_a_token_count_only_if_the_token_ids_are_known():
    responses = [response(0), response(1, token_ids=[5, 6])]
    rows = assemble.draw_rows(responses, {"judge": [grade(0), grade(1)]}, assemble.Tally())
    assert [row["metadata"] for row in rows] == [
        {"finish_reason": "stop"},
        {"response_token_count": 2, "finish_reason": "stop"},
    ]


def test_responses_from_an_api_of_every_status_are_rows_and_counted_where_left_out(tmp_path):
    statuses = ("ok", "too_long", "refused", "control_tokens")
    rows = [response(k, status=status) for k, status in enumerate(statuses)]
    schemas.RESPONSES.write(tmp_path / "r.jsonl", rows)
    assert schemas.RESPONSES.read(tmp_path / "r.jsonl") == rows
    grades = {"judge": [grade(k, None) for k in range(4)]}
    _, summary = logged(rows, grades, {}, base_policy="base", targets=["a"])
    assert summary["dropped"] == {
        "no judge score: unreadable": 1,
        **{f"response {status}": 1 for status in statuses[1:]},
    }
    with pytest.raises(UserError, match="status is 'failed'"):
        schemas.RESPONSES.write(tmp_path / "r.jsonl", [response(0, status="failed")])


def test_model_versions_that_answered_are_counted_by_stage_and_policy():
    responses = [response(k) for k in range(3)]
    local = [response(k, model=None, system_fingerprint=None) for k in range(3)]
    grades = [grade(k, model="gpt-2") for k in range(2)] + [grade(2)]
    versions = assemble.served("base", {"generate": responses, "judge": grades, "judges/b": [grade(0)]})
    assert versions == {
        "generate": {
            "base": [
                {"model": "gpt-1", "system_fingerprint": "fp0", "n": 2},
                {"model": "gpt-1", "system_fingerprint": "fp1", "n": 1},
            ]
        },
        "judge": {"base": [{"model": "gpt-2", "system_fingerprint": None, "n": 2}]},
    }
    assert assemble.served("a", {"generate": local}) == {}
    other = assemble.served("a", {"generate": responses[:1]})
    assert set(assemble.merge_versions([versions, other, {}])["generate"]) == {"base", "a"}
    assert assemble.merge_versions([versions, other])["judge"] == versions["judge"]


def test_the_join_fails_if_too_many_answers_of_a_judge_are_unusable(tmp_path):
    schemas.GRADES.write(tmp_path / "judge.jsonl", [grade(k, None if k < 2 else 0.5) for k in range(20)])
    (tmp_path / "b").mkdir()
    schemas.GRADES.write(tmp_path / "b" / "base.jsonl", [grade(0)])
    paths = assemble.grade_files(str(tmp_path / "judge.jsonl"), [], [str(tmp_path / "b" / "base.jsonl")])
    assert set(paths) == {"judge", "judges/b"}
    assert len(assemble.read_grades(paths, {"judge": 0.1, "judges/b": 0.0})["judge"]) == 20
    with pytest.raises(UserError, match="2 of 20 answers of `judge` are unusable"):
        assemble.read_grades(paths, {"judge": 0.09})


def test_an_experiment_without_log_probabilities_has_no_scoring_jobs_and_one_note(tmp_path):
    tiny_gguf.write(tmp_path / "tiny.gguf", spread=8.0)
    write_prompts(tmp_path / "prompts.jsonl", 8)
    policies = {"base": CONFIG["policies"]["base"] | {"temperature": 0}, "warm": {"like": "base", "temperature": 1.0}}
    changes = {"policies": policies, "estimators": ["direct"], "coverages": ["1.0"], "n_prompts": 8}
    run = Run(tmp_path, CONFIG | changes)
    output = run.snakemake("results/prompts.jsonl")  # with a job, which does not print the notes again
    assert output.count("NOTE ") == 2  # the second is on the source of the prompts
    assert output.count("NOTE prompts.jsonl: 8 prompts") == 1
    assert "only `direct` can estimate the policies: base policy 'base'" in output
    jobs = run.jobs()
    assert {"generate base 0000", "estimate 1.0 direct", "exhibits 1.0"} <= jobs
    assert not {job for job in jobs if job.startswith(("score", "gather_logprobs"))}
    assert "estimator 'snips' needs log probabilities" in run.snakemake("results/coverage_1.0/snips.json", ok=False)


def test_the_library_refuses_weights_if_all_log_probabilities_are_missing(data_without_logprobs):
    with pytest.raises(UserError, match="needs log probabilities"):
        arena_cje.analyze(data_without_logprobs["all"] / "logged.jsonl", estimator="snips")
