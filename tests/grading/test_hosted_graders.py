"""Hosted judges and a hosted oracle in the real workflow, with a server on loopback that counts its calls."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
import threading
from collections import Counter
from hashlib import blake2b

import pytest
import yaml
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

import tiny_gguf
from arena_cje.data import schemas
from arena_cje.grading import grades as grading_grades
from arena_cje.grading import quoting
from workflow_run import CONFIG, ROOT, Run, write_prompts

N = 8


def model_reply(body: dict) -> str:
    """The judge's reply by model: `good` has a number that the text determines, `vague` only when asked again, `mute` never."""
    question = body["messages"][-1]["content"]
    text = re.search(r"<response-(\w+)>\n(.*?)\n</response-\1>", question, re.DOTALL)[2]
    if body["model"] == "mute" or (body["model"] == "vague" and quoting.RETRY_INTRODUCTION.strip() not in question):
        return "I would rather not say."
    return f"Here it is: {json.dumps({'score': number(text, body['model'])})}"


def number(text: str, model: str) -> int:
    """A score from 1 to 10 that the text and the model determine."""
    return 1 + int(blake2b(f"{model} {text}".encode()).hexdigest(), 16) % 10


class Server:
    """Answers chat requests and records their bodies."""

    def __init__(self):
        self.bodies: list[dict] = []
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Response:
        body = request.get_json()
        with self._lock:
            self.bodies.append(body)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": model_reply(body)}}
        if body.get("logprobs"):
            tops = [{"token": "1", "logprob": -1.0}, {"token": "5", "logprob": -1.0}, {"token": "no", "logprob": -2.0}]
            choice["logprobs"] = {"content": [{"token": "1", "logprob": -1.0, "top_logprobs": tops}]}
        answer = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": f"{body['model']}-1",
            "system_fingerprint": "fp",
            "choices": [choice],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        }
        return Response(json.dumps(answer), content_type="application/json")

    def calls(self) -> Counter[str]:
        """The number of calls by model since this method was last called."""
        with self._lock:
            counts, self.bodies = Counter(body["model"] for body in self.bodies), []
        return counts


@pytest.fixture(scope="module")
def server():
    model_server = Server()
    with HTTPServer(threaded=True) as http:
        http.expect_request("/v1/chat/completions", method="POST").respond_with_handler(model_server.answer)
        model_server.url = http.url_for("/v1")
        yield model_server


GRADES = [
    "results/judge/base/0000.jsonl",
    "results/judges/sure/base/0000.jsonl",
    "results/judges/local/base/0000.jsonl",
    "results/oracle/base/coverage_0.25/0000.jsonl",
    "results/oracle/base/coverage_0.5/0000.jsonl",
]
MUTE = "results/judges/mute/base/0000.jsonl"


@pytest.fixture(scope="module")
def run(tmp_path_factory, server) -> Run:
    """One shard, graded by every judge and the oracle; `first` is the output of that run and the calls by model."""
    config = CONFIG | {
        "n_prompts": N,
        "shard_size": N,
        "providers": {"here": {"base_url": server.url, "json_reply": "text"}},
        "judge": {"ensemble": ["strict", "kind"], "uncertainty": "distribution"},
        "judges": {
            "strict": {"provider": "here", "model": "good", "rubric": "rating.yaml"},
            "kind": {"provider": "here", "model": "vague", "rubric": "rating.yaml"},
            "sure": {"provider": "here", "model": "sure", "rubric": "helpfulness.yaml", "uncertainty": "distribution"},
            "mute": {"provider": "here", "model": "mute", "rubric": "rating.yaml"},
            "local": {"model": "smollm2", "rubric": "short.yaml", "max_tokens": 4, "max_unscored": 1.0},
        },
        "oracle": {"provider": "here", "model": "dear", "rubric": "rating.yaml"},
    }
    run = Run(tmp_path_factory.mktemp("hosted"), config)
    tiny_gguf.write(run.directory / "tiny.gguf")
    (run.directory / "other.txt").write_text("Answer with other words.")
    short = {"kind": "structured", "template": "{response}?", "scale": [0, 1]}
    (run.directory / "short.yaml").write_text(yaml.safe_dump(short))
    likely = {"kind": "likelihood", "system_prompt": "helpful.txt"}
    (run.directory / "likely.yaml").write_text(yaml.safe_dump(likely))
    write_prompts(run.directory / "prompts.jsonl", N)
    run.first = run.snakemake("--keep-going", *GRADES, MUTE, ok=False), server.calls()
    return run


def grades(run: Run, name: str) -> list[dict]:
    return schemas.GRADES.read(run.path(name))


def responses(run: Run) -> list[dict]:
    return schemas.RESPONSES.read(run.path("responses/base/0000.jsonl"))


def test_the_score_of_an_ensemble_of_hosted_judges_is_the_mean_of_their_scores(run):
    graded = grades(run, "judge/base/0000.jsonl")
    assert len(graded) == N
    for response, grade in zip(responses(run), graded, strict=True):
        members = [(number(response["response"], model) - 1) / 9 for model in ("good", "vague")]
        assert grade["score"] == pytest.approx(sum(members) / 2)
        assert [point for point, _ in grade["distribution"]] == pytest.approx(sorted(set(members)))
    member = grades(run, "judges/kind/base/0000.jsonl")
    assert {(row["model"], row["system_fingerprint"]) for row in member} == {("vague-1", "fp")}
    assert all(row["reply"].startswith("Here it is") for row in member)


def test_each_question_is_sent_once_and_once_more_after_an_unusable_answer(run):
    _, calls = run.first
    n_labels = len(grades(run, "oracle/base/coverage_0.5/0000.jsonl"))
    # The first question of the judge by choices also checks for log probabilities, without an extra request.
    assert calls == {"good": N, "vague": 2 * N, "sure": N, "mute": 2 * N, "dear": n_labels}


def test_labels_of_a_lower_coverage_are_among_those_of_a_higher_coverage(run):
    few, more = (grades(run, f"oracle/base/coverage_{share}/0000.jsonl") for share in ("0.25", "0.5"))
    assert {row["item"] for row in few} < {row["item"] for row in more}
    by_id = {row["prompt_id"]: row["response"] for row in responses(run)}
    for row in more:
        assert row["score"] == (number(by_id[row["prompt_id"]], "dear") - 1) / 9


def test_choices_have_the_masses_of_the_first_tokens_log_probabilities(run):
    for row in grades(run, "judges/sure/base/0000.jsonl"):
        assert row["distribution"] == [[0.0, pytest.approx(0.5)], [1.0, pytest.approx(0.5)]]
        assert row["choice_mass"] == pytest.approx(2 * math.exp(-1))


def test_a_local_model_can_be_a_judge_that_answers_in_words(run):
    graded = grades(run, "judges/local/base/0000.jsonl")
    assert len(graded) == N
    assert all(row["score"] is not None or row["reply"] is not None for row in graded)
    assert {row["model"] for row in graded} == {None}


def test_a_judge_without_usable_answers_is_refused_with_one_sentence(run):
    output, _ = run.first
    where = "results/journal/calls/judges/mute/base/0000.jsonl"
    assert f"{where}: {N} of {N} answers of `judges.mute` are unusable ({N} x {grading_grades.NO_SCORE})" in output
    assert not run.path("judges/mute/base/0000.jsonl").exists()


def test_settings_that_do_not_change_answers_make_no_grade_stale(run):
    config = copy.deepcopy(run.config)
    run.config["providers"]["here"] |= {"max_concurrency": 2, "timeout": 33.0, "api_key_env": "SOME_KEY"}
    run.config["judges"]["strict"]["max_unscored"] = 0.5
    assert run.jobs(*GRADES) == set()
    run.config = config


def test_a_changed_parameter_makes_the_grades_that_depend_on_it_stale(run):
    config = copy.deepcopy(run.config)
    run.config["judges"]["strict"]["temperature"] = 0.5
    run.config["oracle"]["max_tokens"] = 50
    labels = {"oracle base 0.25 0000", "oracle base 0.5 0000"}
    assert run.jobs(*GRADES) == {"judge judges/strict base 0000", "ensemble judge base 0000", *labels}
    run.config = config


def test_a_likelihood_rubric_at_a_chat_api_is_refused_before_anything_runs(run):
    config = copy.deepcopy(run.config)
    run.config["judges"]["strict"]["rubric"] = "likely.yaml"
    output = run.snakemake("-n", *GRADES, ok=False)
    run.config = config
    assert "ERROR config: `judges.strict` asks the provider 'here', but the rubric 'likely.yaml'" in output


def test_grades_are_made_again_from_the_journal_without_a_call(run, server):
    """All grades are deleted, unusable answers are allowed, and another rubric has the same question with another scale."""
    before = {name: run.directory.joinpath(name).read_bytes() for name in GRADES}
    for name in GRADES:
        run.directory.joinpath(name).unlink()
    raw = yaml.safe_load((ROOT / "resources" / "judges" / "rating.yaml").read_text())
    instructions = 'Answer with one JSON object and nothing else: {"score": a number from 1 to 10}'
    twenty = raw | {"instructions": instructions, "scale": [0, 20]}
    (run.directory / "twenty.yaml").write_text(yaml.safe_dump(twenty))
    run.config["judges"]["mute"]["max_unscored"] = 1.0
    run.config["judges"]["twenty"] = run.config["judges"]["strict"] | {"rubric": "twenty.yaml"}
    run.snakemake(*GRADES, MUTE)
    assert server.calls() == {}
    assert {name: run.directory.joinpath(name).read_bytes() for name in GRADES} == before
    mute = grades(run, "judges/mute/base/0000.jsonl")
    assert {(row["score"], row["reason"]) for row in mute} == {(None, grading_grades.NO_SCORE)}
    # Both judges send the same requests, so the journal of one has the replies for the other.
    strict, other = (run.directory / f"results/journal/calls/judges/{name}/base" for name in ("strict", "twenty"))
    shutil.copytree(strict, other)
    run.snakemake("results/judges/twenty/base/0000.jsonl")
    assert server.calls() == {}
    scores = [row["score"] for row in grades(run, "judges/twenty/base/0000.jsonl")]
    assert scores == [number(row["response"], "good") / 20 for row in responses(run)]
