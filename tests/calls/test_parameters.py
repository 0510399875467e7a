"""Parameters that servers refuse, in their own words: the error names the key to set, and with that key they are not sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arena_cje.calls import parameters
from arena_cje.calls.request import Request
from arena_cje.config import checks
from arena_cje.config.records import Config
from arena_cje.errors import UserError
from arena_cje.grading.grades import Item
from arena_cje.grading.hosted import HostedJudge
from arena_cje.grading.rubrics import load_rubric
from arena_cje.grading.rubrics.structured import Structured
from arena_cje.hosted.writer import Writer, request_identity
from arena_cje.money.estimate import Texts
from arena_cje.stages import model_check
from calls_process import chat_body, endpoint, send
from fault_server import FaultServer
from workflow_run import ROOT

BODY: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "x"}],
    "max_tokens": 9,
    "temperature": 0.0,
    "top_p": 1.0,
    "seed": 7,
    "stop": ["\n"],
    "response_format": {"type": "json_object"},
    "logprobs": True,
    "top_logprobs": 5,
    "min_p": 0.0,
    "reasoning_effort": "low",
}
ERRORS = [
    (
        "max_tokens",
        {
            "message": "Unsupported parameter: 'max_tokens' is not supported here. Use 'max_completion_tokens' instead.",
            "param": "max_tokens",
            "code": "unsupported_parameter",
        },
    ),
    ("max_tokens", {"message": "this model does not support max_tokens, please use max_completion_tokens"}),
    ("max_tokens", {"message": "Invalid parameter: maxTokens is deprecated"}),
    ("seed", {"message": "Unrecognized request argument supplied: seed"}),
    ("seed", {"message": "Unknown parameter: 'seed'.", "code": "unknown_parameter"}),
    ("seed", {"message": "seed: Extra inputs are not permitted"}),
    ("seed", {"message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'}),
    ("seed", {"message": "UnsupportedParamsError: azure does not support parameters: ['seed'], for model=x"}),
    ("seed", {"message": "Additional properties are not allowed ('seed' was unexpected)"}),
    ("seed", {"message": 'json: unknown field "seed"'}),
    ("seed", {"message": "got an unexpected keyword argument 'seed'"}),
    ("seed", {"message": "seed is not a recognized parameter"}),
    ("seed", {"message": "No endpoints found that support the provided 'seed' parameter"}),
    (
        "seed",
        {"message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}]"},
    ),
    (
        "temperature",
        {"message": "Unsupported value: 'temperature' does not support 0 with this model.", "param": "temperature"},
    ),
    ("temperature", {"message": "`temperature` isn't supported by this model"}),
    ("top_p", {"message": "The parameter top_p cannot be used with this model"}),
    ("response_format", {"message": "This response_format type is unavailable now"}),
    ("response_format", {"message": "response format is not supported"}),
    ("logprobs", {"message": "property 'logprobs' is unsupported"}),
    ("top_logprobs", {"message": "top_logprobs is not available for this model"}),
    ("min_p", {"message": "extraneous key [min_p] is not permitted"}),
    ("reasoning_effort", {"message": "Unrecognized request argument supplied: reasoning_effort"}),
    ("stop", {"message": "Unsupported parameter: 'stop'"}),
]


@pytest.mark.parametrize(("name", "error"), ERRORS)
@pytest.mark.parametrize("status", [400, 422])
def test_the_error_of_a_refused_parameter_names_the_key_to_set(name, error, status):
    content = json.dumps({"error": error}).encode()
    with FaultServer(responses=lambda body: (status, {}, content)) as server, pytest.raises(UserError) as raised:
        send(Request("chat", BODY), endpoint(server.url))
    message = str(raised.value)
    assert f"the server rejects `{name}`: " in message
    assert parameters.advice(name, "local") in message
    assert "finished items are kept" in message and "\n" not in message


def test_the_field_loc_of_a_validation_error_names_the_parameter():
    detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 7}]
    content = json.dumps({"detail": detail}).encode()
    with (
        FaultServer(responses=lambda body: (422, {}, content)) as server,
        pytest.raises(UserError, match="set `providers.local.seed: omit`"),
    ):
        send(Request("chat", BODY), endpoint(server.url))


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 99999. This model supports at most 16384 completion tokens",
        "The model `m` does not support images in messages",
        "Unsupported parameter: 'frequency_penalty'",
        "temperature must be at most 2",
    ],
)
def test_other_errors_name_no_parameter(message):
    assert parameters.refused_parameter(message, BODY) is None


# Configuration keys that rename or omit a parameter


def configuration(url: str, **provider: Any) -> Config:
    judge = {"provider": "here", "model": "judge", "rubric": "rating.yaml"}
    return Config.model_validate(
        {
            "providers": {"here": {"base_url": url, "max_attempts": 2, "timeout": 10, **provider}},
            "policies": {"base": {"provider": "here", "model": "toy"}},
            "judge": judge,
        }
    )


def refuse_max_tokens_and_seed(body):
    """A server of reasoning models, which supports neither `max_tokens` nor `seed`."""
    for name, other in (("max_tokens", "max_completion_tokens"), ("seed", None)):
        if name in body:
            use = f" Use '{other}' instead." if other else ""
            error = {
                "message": f"Unsupported parameter: '{name}' is not supported with this model.{use}",
                "param": name,
            }
            return 400, {}, json.dumps({"error": error}).encode()
    return 200, {}, chat_body()


def test_the_advice_of_the_model_check_leads_to_a_configuration_that_works():
    rating = load_rubric(ROOT / "resources" / "judges" / "rating.yaml")
    several = rating.model_copy(update={"samples": 3, "temperature": 1.0})
    keys: dict[str, str] = {}
    with FaultServer(responses=refuse_max_tokens_and_seed) as server:
        for name, value in (("token_limit", "max_completion_tokens"), ("seed", "omit")):
            config = configuration(server.url, **keys)
            findings = model_check.check(model_check.trials(config, Texts((), rubrics={"rating.yaml": several})))
            assert [(one.ok, f"set `providers.here.{name}: {value}`" in one.answer) for one in findings] == [
                (False, True)
            ] * 2
            keys[name] = value
        config = configuration(server.url, **keys)
        findings = model_check.check(model_check.trials(config, Texts((), rubrics={"rating.yaml": several})))
    assert all(one.ok for one in findings)
    assert all("max_tokens" not in body and "seed" not in body for body in server.bodies[-2:])


@pytest.mark.parametrize(
    ("rubric", "name", "advice"),
    [
        ("rating.yaml", "response_format", "set `providers.here.json_reply: text`"),
        ("helpfulness.yaml", "logprobs", "choose a rubric of kind 'structured' for a judge"),
    ],
)
def test_the_model_check_sends_the_parameters_of_the_run(rubric, name, advice):
    def responses(body):
        error = {"error": {"message": f"`{name}` is not supported"}}
        return (400, {}, json.dumps(error).encode()) if name in body else (200, {}, chat_body())

    with FaultServer(responses=responses) as server:
        config = configuration(server.url)
        config = Config.model_validate(
            config.model_dump() | {"judge": {"provider": "here", "model": "j", "rubric": rubric}}
        )
        rubrics = {rubric: load_rubric(ROOT / "resources" / "judges" / rubric)}
        policy, judge = model_check.check(model_check.trials(config, Texts((), rubrics=rubrics)))
    assert policy.ok
    assert not judge.ok and advice in judge.answer


def test_the_token_limit_is_sent_under_its_configured_name_alone():
    for name in ("max_tokens", "max_completion_tokens"):
        for url in (None, "http://127.0.0.1:1"):
            body = Writer(endpoint(url, token_limit=name), "m", max_tokens=5).request("x", 1).body
            assert {key: value for key, value in body.items() if "tokens" in key} == {name: 5}


def test_draws_and_samples_without_a_seed_have_different_request_keys():
    silent = endpoint("http://x", seed="omit")
    writer = Writer(silent, "m")
    one, other = writer.request("x", 1), writer.request("x", 2)
    assert "seed" not in one.body and one.body == other.body
    assert len({one.key(silent), other.key(silent)}) == 2
    greedy = Writer(silent, "m", temperature=0.0)
    assert greedy.request("x", 1) == greedy.request("x", 2)
    raw = {"kind": "structured", "template": "{response}", "scale": [0, 1], "samples": 2}
    judge = HostedJudge(silent, "m", Structured.model_validate(raw), None, 1.0, 9, {})
    item = Item("p", 0, "a", "b")
    requests = [judge.request(item, sample) for sample in (0, 1)]
    assert "seed" not in requests[0].body and requests[0].key(silent) != requests[1].key(silent)


def test_the_sample_number_is_part_of_the_request_key_only_if_it_is_set():
    to = endpoint("http://x")
    assert Request("chat", BODY).key(to) == Request("chat", BODY, None).key(to) != Request("chat", BODY, 7).key(to)


def test_a_parameter_that_is_null_under_extra_is_left_out():
    body = Writer(endpoint("http://x"), "m", extra={"top_p": None, "a": 1}).request("x", 1).body
    assert "top_p" not in body and body["a"] == 1
    blocks = {"base": {"provider": "here", "model": "toy", "extra": {"temperature": None}}}
    raw = configuration("http://x").model_dump() | {"policies": blocks}
    assert Config.model_validate(raw).policies["base"].extra == {"temperature": None}


def test_a_sampling_parameter_that_is_set_cannot_be_null_under_extra():
    for place, block in (("base", {"temperature": 0.5}), ("base", {"top_p": 0.9})):
        (name,) = block
        policies = {place: {"provider": "here", "model": "toy", "extra": {name: None}, **block}}
        config = Config.model_validate(configuration("http://x").model_dump() | {"policies": policies})
        with pytest.raises(UserError, match=f"`policies.base.extra.{name}: null` leaves `{name}` out"):
            checks._check_extra(config)


def test_token_limit_and_seed_settings_are_part_of_the_request_identity_if_they_are_set():
    config = configuration("http://x")
    block = config.policies["base"]
    plain = request_identity(block, endpoint("http://x"))
    assert "seed" not in plain and "token_limit" not in plain  # results of earlier versions stay as they are
    assert request_identity(block, endpoint("http://x", seed="omit"))["seed"] == "omit"
    limit = "max_completion_tokens"
    assert request_identity(block, endpoint("http://x", token_limit=limit))["token_limit"] == limit
