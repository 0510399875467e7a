"""Log probabilities of responses from an API that returns those of a text that it is sent (completions with `echo`).

    log p(a | x) = sum_t log p(a_t | x, a_1 .. a_{t-1})   nats; x is the prompt in the chat template, a the response

A request contains x and a, and the end token where the policy ended the response by itself. The reply has the log probability
of each token of this text. The tokens of the response are the last ones, whose texts together are the response.

There are no such tokens where one token spans the end of the prompt and the beginning of the response. Then a second request
contains x alone. If the tokens of x are the first tokens of x a, the other tokens belong to the response. Otherwise

    log p(a | x) = log p(tokens of x a) - log p(tokens of x)    from the first token that differs, at most 0

is one number for the whole response, and `n_boundary` is 1. Base and target policies are treated alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena_cje.calls.reading import ROUNDING
from arena_cje.calls.request import Ask, Reply, Request
from arena_cje.hosted import writer as hosted_writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.hosted.writer import Writer


REPLACEMENT_CHARACTER = "\ufffd"  # the text of bytes that are an incomplete character


@dataclass(frozen=True)
class PromptResponse:
    """A prompt and a response to it. stopped: whether the policy ended the response by itself."""

    prompt: str
    response: str
    stopped: bool


@dataclass(frozen=True)
class ResponseLogprobs:
    """Log probabilities of one response; `status` as in `schemas.SCORES`."""

    token_logprobs: tuple[float, ...]  # (t,) nats
    n_boundary: int  # tokens that span the end of the prompt and the beginning of the response
    status: str


def response_logprobs(ask: Ask, writer: Writer, pairs: Sequence[PromptResponse]) -> list[ResponseLogprobs]:
    """Log probabilities of responses under a policy, in their order."""
    statuses = [_status_without_request(writer, pair) for pair in pairs]
    scorable = [pair for pair, status in zip(pairs, statuses, strict=True) if status is None]
    replies = ask([echo_request(writer, pair) for pair in scorable])
    results = [_from_last_tokens(writer, pair, reply) for pair, reply in zip(scorable, replies, strict=True)]
    incomplete = [k for k, result in enumerate(results) if result is None]
    prompt_replies = (
        ask([_request(writer, _prompt_text(writer, scorable[k])) for k in incomplete]) if incomplete else []
    )
    for k, prompt_reply in zip(incomplete, prompt_replies, strict=True):
        results[k] = _from_prompt_tokens(writer, scorable[k], replies[k], prompt_reply)
    in_order = iter(results)
    return [ResponseLogprobs((), 0, status) if status else next(in_order) for status in statuses]


def echo_request(writer: Writer, pair: PromptResponse) -> Request:
    """The request for the log probabilities of a response."""
    return _request(writer, _full_text(writer, pair))


def _status_without_request(writer: Writer, pair: PromptResponse) -> str | None:
    """The status of a response for which no request is sent; None where one is."""
    if writer.template.has_control_tokens(pair.prompt) or writer.template.has_control_tokens(pair.response):
        return "control_tokens"
    if pair.response.endswith(REPLACEMENT_CHARACTER) and not pair.stopped:
        return "not_echoed"  # `max_tokens` cut a local model's response within a character
    return None if pair.response or pair.stopped else "empty"


def _prompt_text(writer: Writer, pair: PromptResponse) -> str:
    return writer.template.render(writer.system_prompt, pair.prompt)


def _full_text(writer: Writer, pair: PromptResponse) -> str:
    return _prompt_text(writer, pair) + pair.response + (writer.template.end if pair.stopped else "")


def _request(writer: Writer, text: str) -> Request:
    """The request that returns a text with the log probabilities of its tokens.

    Where a server must generate a token, temperature 0 makes it the likeliest one: a sampled token might be an incomplete
    character, after which some servers generate more tokens until it is complete.
    """
    limit = writer.endpoint.echo_max_tokens
    parameters = {"model": writer.model, "prompt": text, "max_tokens": limit, "temperature": 0.0 if limit else 1.0}
    seed, _ = hosted_writer.seed_or_sample(writer.endpoint, 0)
    body = {**parameters, "echo": True, "logprobs": 1, **seed}
    return Request("completion", hosted_writer.with_extra(body, writer.extra))


def _echoed_tokens(writer: Writer, text: str, reply: Reply) -> tuple[list[str], list[float | None]] | None:
    """Tokens of the requested text, and their log probabilities; None where the reply has another text or more tokens."""
    # Some servers leave out the control tokens of a text that they return.
    request_text, reply_text = (
        writer.template.without_control_tokens(text),
        writer.template.without_control_tokens(reply.text),
    )
    tokens = list(reply.tokens)
    n_generated = _n_generated(writer, reply)
    is_complete = (
        not n_generated or writer.template.without_control_tokens(tokens[-1]) == reply_text[len(request_text) :]
    )
    if (
        not tokens
        or not reply_text.startswith(request_text)
        or not is_complete
        or len(tokens) != len(reply.token_logprobs)
    ):
        return None
    end = len(tokens) - n_generated
    return tokens[:end], list(reply.token_logprobs[:end])


def _n_generated(writer: Writer, reply: Reply) -> int:
    """Number of tokens at the end that the server generated: at most one, which some servers cannot do without."""
    if writer.endpoint.echo_max_tokens == 0 or not reply.tokens:
        return 0
    if reply.ending == "cut":
        return 1
    return min(1, reply.usage.completion_tokens) if reply.usage else 0


def _from_last_tokens(writer: Writer, pair: PromptResponse, reply: Reply) -> ResponseLogprobs | None:
    """Log probabilities of the last tokens, where their texts are the response; None where the prompt must be sent alone."""
    if reply.error:
        return ResponseLogprobs((), 0, reply.error)
    echoed = _echoed_tokens(writer, _full_text(writer, pair), reply)
    if echoed is None:
        return ResponseLogprobs((), 0, "not_echoed")
    tokens, logprobs = echoed
    start = _response_start(tokens, pair, writer.template.end)
    return None if start is None else _checked(logprobs[start:])


def _response_start(tokens: Sequence[str], pair: PromptResponse, end_token: str) -> int | None:
    """Index of the first token of the response, by comparing texts from the end; None where no token begins there."""
    start = len(tokens)
    if pair.stopped:
        start -= 1
        if start < 0 or tokens[start] not in (end_token, ""):
            return None
    rest = pair.response
    while rest:
        start -= 1
        if start < 0 or not rest.endswith(tokens[start]):
            return None
        rest = rest[: len(rest) - len(tokens[start])]
    # A token without text may be the first bytes of a character of the response, or a control token of the prompt.
    return None if pair.response and start > 0 and tokens[start - 1] == "" else start


def _from_prompt_tokens(writer: Writer, pair: PromptResponse, reply: Reply, prompt_reply: Reply) -> ResponseLogprobs:
    """Log probabilities of the response, with the help of a second reply that has the tokens of the prompt alone."""
    whole = _echoed_tokens(writer, _full_text(writer, pair), reply)
    prompt = _echoed_tokens(writer, _prompt_text(writer, pair), prompt_reply) if not prompt_reply.error else None
    if whole is None or prompt is None:
        return ResponseLogprobs((), 0, prompt_reply.error or "not_echoed")
    n_common = _n_common(whole[0], prompt[0])
    whole_rest, prompt_rest = whole[1][n_common:], prompt[1][n_common:]
    if not prompt_rest:
        return _checked(whole_rest)
    if not whole_rest or None in prompt_rest or None in whole_rest:
        return ResponseLogprobs((), 1, "not_finite")
    conditional = _checked([min(0.0, math.fsum([*whole_rest, *(-value for value in prompt_rest)]))])
    return ResponseLogprobs(conditional.token_logprobs, 1, conditional.status)


def _n_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the common beginning of two sequences."""
    pairs = zip(first, second, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _checked(logprobs: Sequence[float | None]) -> ResponseLogprobs:
    """The log probabilities, or the status of a response that lacks one or has an impossible one."""
    if not logprobs:
        return ResponseLogprobs((), 0, "empty")
    if any(value is None or math.isnan(value) or value > ROUNDING or value == -math.inf for value in logprobs):
        return ResponseLogprobs((), 0, "not_finite")
    return ResponseLogprobs(tuple(min(0.0, value) for value in logprobs), 0, "ok")
