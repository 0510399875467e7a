"""The check of each configured model for its use, and its one-sentence reasons: a missing key, an HTTP status, a server that
is not there, replies without log probabilities, and scores of given text that belong to other tokens."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import tiny_gguf
from arena_cje.calls.request import Reply
from arena_cje.config.records import Config
from arena_cje.errors import UserError
from arena_cje.grading.rubrics import load_rubric
from arena_cje.hosted.template import Template, load
from arena_cje.hosted.writer import Writer
from arena_cje.money.estimate import Texts
from arena_cje.stages import model_check
from echo_server import ENDPOINT, Server, logprob, tokens
from fault_server import FaultServer, correct_reply, scripted
from workflow_run import ROOT, Run, write_prompts

if TYPE_CHECKING:
    from pathlib import Path

RESOURCES = ROOT / "resources"
CHATML = load(RESOURCES / "templates" / "chatml.yaml")
KEY = "sk-abcdefgh-0123456789-secret"


def configuration(url: str, **policies) -> Config:
    provider = {"api": "openai", "base_url": f"{url}/v1", "max_attempts": 2, "timeout": 10}
    return Config.model_validate(
        {
            "providers": {"here": provider, "locked": {**provider, "api_key_env": "ARENA_TEST_KEY"}},
            "policies": policies or {"base": {"provider": "here", "model": "toy"}},
        }
    )


def findings_of(config: Config) -> list[model_check.Finding]:
    rubrics = {"helpfulness.yaml": load_rubric(RESOURCES / "judges" / "helpfulness.yaml")}
    return model_check.check(model_check.trials(config, Texts((), rubrics=rubrics)))


def test_a_model_that_answers_is_ok_and_named_by_its_version():
    with FaultServer() as server:
        (one,) = findings_of(configuration(server.url))
    assert (one.ok, one.use, one.users) == (True, "writes", ("policies.base",))
    assert one.answer.startswith("toy-2025-01-01, ") and one.answer.endswith(" ms")
    (body,) = server.bodies
    assert body["max_tokens"] == 1


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        ("401", "the key is not accepted"),
        ("403", "no right to use this model"),
        ("404", "the model or the address does not exist"),
        ("quota", "quota"),
        ("400", "Unsupported parameter"),
        ("content policy", "declines a simple test question"),
    ],
)
def test_the_reason_why_a_model_does_not_answer_is_reported_without_the_key(fault, answer, monkeypatch):
    monkeypatch.setenv("ARENA_TEST_KEY", KEY)
    with FaultServer(faults=scripted(*[fault] * 9)) as server:
        (one,) = findings_of(configuration(server.url, base={"provider": "locked", "model": "toy"}))
    assert not one.ok and answer in one.answer
    assert KEY not in one.answer and KEY[:8] not in one.answer  # the server repeats the key in its reply
    assert server.keys[KEY] == server.sent.total() == 1


def test_a_model_whose_answer_does_not_begin_within_one_token_is_ok():
    """Some servers return an error when the answer has not begun within one token; the model is there all the same."""
    with FaultServer(faults=scripted("unfinished")) as server:
        (one,) = findings_of(configuration(server.url))
    assert one.ok and one.answer.startswith("version unknown, ")
    assert server.sent.total() == 1


def test_a_missing_key_is_named_by_its_variable_and_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("ARENA_TEST_KEY", raising=False)
    with FaultServer() as server:
        config = configuration(
            server.url, base={"provider": "locked", "model": "toy"}, other={"provider": "here", "model": "toy"}
        )
        locked, here = findings_of(config)
    assert not locked.ok and "ARENA_TEST_KEY" in locked.answer
    assert here.ok and server.sent.total() == 1  # the other model is tried after a failure


def test_a_server_that_is_not_there_is_reported_with_its_address(monkeypatch):
    monkeypatch.setattr(model_check, "ATTEMPTS", 1)
    (one,) = findings_of(configuration("http://127.0.0.1:9"))
    assert not one.ok and "no answer from http://127.0.0.1:9/v1" in one.answer


def test_a_transient_failure_is_tried_again():
    with FaultServer(faults=scripted("429 with Retry-After", "503"), retry_after=0.1) as server:
        (one,) = findings_of(configuration(server.url))
    assert one.ok and server.sent.total() == 3


def test_each_model_is_tried_once_and_all_models_in_parallel():
    blocks = {f"p{k}": {"provider": "here", "model": f"toy-{k % 6}", "temperature": 1 + k / 10} for k in range(12)}
    with FaultServer(latency=1.0) as server:
        findings = findings_of(configuration(server.url, **blocks))
    assert [one.users for one in findings] == [(f"policies.p{k}", f"policies.p{k + 6}") for k in range(6)]
    assert server.sent.total() == server.max_in_flight == 6
    assert all(one.ok for one in findings)


def test_a_judge_with_choices_needs_log_probabilities():
    judge = {"judge": {"provider": "here", "model": "judge", "rubric": "helpfulness.yaml"}}
    with FaultServer() as server:
        config = Config.model_validate({**configuration(server.url).model_dump(), **judge})
        trials = model_check.trials(config, Texts((), rubrics={"helpfulness.yaml": load_rubric(RUBRIC)}))
        assert [one.ok for one in model_check.check(trials)] == [True, True]
    assert any(body.get("logprobs") for body in server.bodies)
    (chooser,) = (one for one in trials if one.what == "chooses")
    with pytest.raises(UserError, match="contain no log probabilities"):
        chooser.check(lambda requests: [Reply("7", model="m") for _ in requests])


@pytest.mark.parametrize(
    ("shift", "answer"),
    [(0, "scores given text to 0 nats a token"), (1, "its log probabilities of given text are inconsistent")],
)
def test_a_likelihood_judge_needs_consistent_log_probabilities_of_given_text(shift, answer, tmp_path):
    """The whole check, with the files of rubric and template and with requests."""
    write_prompts(tmp_path / "prompts.jsonl", 2)
    with FaultServer(replies=replies_of(GeneratingServer(shift=shift))) as server:
        config = configuration(server.url).model_dump()
        config["providers"]["here"] |= {"completions": True, "echo_max_tokens": 0}
        config["judge"] = {"provider": "here", "model": "judge", "rubric": "likelihood.yaml", "template": "chatml.yaml"}
        config["n_prompts"] = 2
        findings = model_check.run(Config.model_validate(config), str(tmp_path / "prompts.jsonl"), str(RESOURCES))
    policy, judge = findings
    assert policy.ok and policy.use == "writes"
    assert (judge.ok, judge.use, judge.users) == (shift == 0, "scores", ("judge",))
    assert answer in judge.answer
    (helpful,) = {body["prompt"].partition("<|im_start|>user")[0] for body in server.bodies if body["model"] == "judge"}
    assert (RESOURCES / "policies" / "helpful.txt").read_text().strip() in helpful


def replies_of(server: GeneratingServer):
    """The answers of a server to completions, as JSON; chats get the usual ones."""

    def answers(path, body):
        if path.endswith("/chat/completions"):
            return correct_reply(path, body)
        reply = server.reply(body)
        logprobs = {"tokens": list(reply.tokens), "token_logprobs": list(reply.token_logprobs)}
        choice = {"index": 0, "text": reply.text, "finish_reason": reply.finish_reason, "logprobs": logprobs}
        return {"id": "x", "object": "text_completion", "created": 0, "model": "toy-1", "choices": [choice]}

    return answers


RUBRIC = RESOURCES / "judges" / "helpfulness.yaml"


class GeneratingServer(Server):
    """A server that generates text, with the same log probabilities as when it scores given text.

    shift: how many tokens the scores are off by. warm: log probabilities are of the distribution after the temperature.
    logprobs: whether generated text has log probabilities.
    """

    def __init__(self, *, shift: int = 0, warm: bool = False, logprobs: bool = True, **more):
        super().__init__(**more)
        self.shift, self.warm, self.logprobs = shift, warm, logprobs

    def reply(self, body) -> Reply:
        if body.get("echo"):
            reply = super().reply(body)
            values = [*reply.token_logprobs[self.shift :], *[-1.0] * self.shift]
            return dataclasses.replace(reply, token_logprobs=[None, *values[1:]])
        before, output_tokens = tokens(body["prompt"]), ["paris", " ", "it", " "][: body["max_tokens"]]
        values = [logprob((*before, *output_tokens[:k]), token) for k, token in enumerate(output_tokens)]
        if self.warm and body["temperature"] == 0:
            values = [0.0] * len(output_tokens)
        return Reply(
            "".join(output_tokens),
            "length",
            tokens=output_tokens,
            token_logprobs=values if self.logprobs else (),
            model="toy-1",
        )


def test_log_probabilities_of_given_text_are_compared_with_those_of_generated_text():
    writer = Writer(ENDPOINT, "toy", "Be kind.", CHATML)
    for server in (GeneratingServer(), GeneratingServer(warm=True)):
        assert "scores given text to 0 nats a token" in model_check._scores(server, writer)
    for shift in (1, 2):
        with pytest.raises(
            UserError, match="its log probabilities of given text are inconsistent: 'paris it '.*completions: false"
        ):
            model_check._scores(GeneratingServer(shift=shift), writer)
    with pytest.raises(UserError, match="without log probabilities"):
        model_check._scores(GeneratingServer(logprobs=False), writer)


def test_log_probabilities_may_differ_by_rounding_but_not_by_more():
    class RoundingServer(GeneratingServer):
        def reply(self, body):
            reply = super().reply(body)
            moved = [value and value + (self.by if body.get("echo") else 0.0) for value in reply.token_logprobs]
            return dataclasses.replace(reply, token_logprobs=moved)

    writer = Writer(ENDPOINT, "toy", "Be kind.", CHATML)
    for by, right in ((-0.04, True), (-0.06, False)):
        server = RoundingServer()
        server.by = by
        if right:
            assert "to 0.04 nats" in model_check._scores(server, writer)
        else:
            with pytest.raises(UserError, match="are inconsistent"):
                model_check._scores(server, writer)


@contextmanager
def llama_server(model: Path):
    """llama.cpp's Python server with a model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [
        "--model",
        str(model),
        "--logits_all",
        "true",
        "--n_ctx",
        "512",
        "--n_threads",
        "1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "llama_cpp.server", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).read()
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_a_real_server_passes_with_a_template_that_begins_with_bos_and_fails_without_bos(tmp_path):
    """llama_cpp.server pairs tokens with their neighbours' probabilities where a text does not begin with the BOS token."""
    model = tiny_gguf.write(tmp_path / "tiny.gguf", **tiny_gguf.KINDS["gpt2-bytes"])
    # After these ends the random model generates whole characters, which can be sent back.
    forms = {"bos": (tiny_gguf.BOS, "er"), "none": ("", "A: ")}
    templates = {
        name: Template(
            with_system=f"{begin}{{system}} {{prompt}}{end}",
            without_system=f"{begin}{{prompt}}{end}",
            end=tiny_gguf.END,
            control=tiny_gguf.SPECIAL,
        )
        for name, (begin, end) in forms.items()
    }
    with llama_server(model) as url:
        config = Config.model_validate(
            {
                "providers": {
                    name: {"api": "openai", "base_url": f"{url}/v1", "completions": True} for name in ("bos", "none")
                },
                "policies": {name: {"provider": name, "model": "tiny", "template": name} for name in ("bos", "none")},
                "base_policy": "bos",
            }
        )
        right, wrong = model_check.check(model_check.trials(config, Texts((), templates=templates)))
    assert right.ok and "scores given text" in right.answer, right
    assert not wrong.ok and "score" in wrong.answer  # its scores are inconsistent, or cannot be read from the reply


# Local models


def finding_of_local_model(tmp_path: Path, **model) -> model_check.Finding:
    policies = {"base": {"model": "mine"}, "other": {"model": "mine", "temperature": 0.5}}
    config = Config.model_validate({"models": {"mine": model}, "policies": policies})
    (one,) = model_check.local(config, RESOURCES, results=tmp_path / "results")
    return one


def test_a_local_model_needs_an_existing_gguf_file_or_a_known_recipe(tmp_path, tiny_model):
    here = finding_of_local_model(tmp_path, path=str(tiny_model))
    assert here.ok and here.users == ("policies.base", "policies.other") and "MB" in here.answer
    missing = finding_of_local_model(tmp_path, path=str(tmp_path / "gone.gguf"))
    assert not missing.ok and "does not exist" in missing.answer
    (tmp_path / "text.gguf").write_text("hello")
    assert not finding_of_local_model(tmp_path, path=str(tmp_path / "text.gguf")).ok
    assert finding_of_local_model(tmp_path, file="SmolLM2-135M-Instruct.F16.gguf").ok
    assert not finding_of_local_model(tmp_path, file="Unheard-of.gguf").ok


def test_a_recorded_hash_is_reported_and_compared_with_the_expected_hash(tmp_path, tiny_model):
    record = tmp_path / "results" / "models" / "mine.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"sha256": "ab" * 32}))
    assert "sha256 abababababab…" in finding_of_local_model(tmp_path, path=str(tiny_model)).answer
    assert finding_of_local_model(tmp_path, path=str(tiny_model), sha256="ab" * 32).ok
    assert "expected cd" in finding_of_local_model(tmp_path, path=str(tiny_model), sha256="cd" * 32).answer


# The command


def test_the_command_fails_when_one_model_fails(tmp_path, tiny_model):
    write_prompts(tmp_path / "prompts.jsonl", 24)
    os.link(tiny_model, tmp_path / "tiny.gguf")
    models = {"smollm2": {"file": None, "path": "tiny.gguf", "sha256": "cd" * 32}}
    run = Run(tmp_path, {"n_prompts": 24, "prompts": {"source": "prompts.jsonl"}, "models": models})
    run.path("models").mkdir(parents=True)
    run.path("models/smollm2.json").write_text(json.dumps({"sha256": "ab" * 32}))
    output = run.snakemake("check_models", ok=False)
    assert "NO  smollm2" in output and "1 of 1 models cannot do what the configuration needs" in output
