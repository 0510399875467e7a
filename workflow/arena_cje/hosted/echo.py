"""Log probabilities of given text, from endpoints that echo them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena_cje.calls.request import Ask, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.hosted.writer import Writer


REPLACEMENT_CHARACTER = "\ufffd"  # stands for bytes that are no character yet


ROUNDING = 1e-4  # nats above zero that a log probability may be by rounding alone


@dataclass(frozen=True)
class PromptResponse:
    """A response to be scored: its text, and whether the policy ended it by itself."""

    prompt: str
    response: str
    stopped: bool


@dataclass(frozen=True)
class ResponseLogprobs:
    """Log probabilities of one response; statuses as in `schemas.SCORES`."""

    token_logprobs: tuple[float, ...]  # (t,) nats
    n_boundary: int
    status: str


def response_logprobs(ask: Ask, writer: Writer, answers: Sequence[PromptResponse]) -> list[ResponseLogprobs]:
    """Log probabilities of the answers under a policy, in their order."""
    unsent = [_unsent(writer, answer) for answer in answers]
    sent = [answer for answer, status in zip(answers, unsent, strict=True) if status is None]
    replies = ask([echo_request(writer, answer) for answer in sent])
    first = [_from_the_end(writer, answer, reply) for answer, reply in zip(sent, replies, strict=True)]
    again = [k for k, found in enumerate(first) if found is None]
    prompts = ask([_echo(writer, _opening(writer, sent[k])) for k in again]) if again else []
    for k, alone in zip(again, prompts, strict=True):
        first[k] = _beside_the_prompt(writer, sent[k], replies[k], alone)
    found = iter(first)
    return [ResponseLogprobs((), 0, status) if status else next(found) for status in unsent]


def echo_request(writer: Writer, answer: PromptResponse) -> Request:
    """The request that scores an answer."""
    return _echo(writer, _whole(writer, answer))


def _unsent(writer: Writer, answer: PromptResponse) -> str | None:
    """Why an answer is not sent to be scored, if so."""
    if writer.template.forges(answer.prompt) or writer.template.forges(answer.response):
        return "control_tokens"
    if answer.response.endswith(REPLACEMENT_CHARACTER) and not answer.stopped:
        return "not_echoed"  # a local model's tokens that end within a character
    return None if answer.response or answer.stopped else "empty"


def _opening(writer: Writer, answer: PromptResponse) -> str:
    return writer.template.render(writer.system_prompt, answer.prompt)


def _whole(writer: Writer, answer: PromptResponse) -> str:
    return _opening(writer, answer) + answer.response + (writer.template.end if answer.stopped else "")


def _echo(writer: Writer, text: str) -> Request:
    """A request that echoes a text with log probabilities. A token that it has to say besides is the likeliest one: a drawn
    one might be half a character, after which some servers go on until it is whole."""
    limit = writer.endpoint.echo_max_tokens
    told = {"model": writer.model, "prompt": text, "max_tokens": limit, "temperature": 0.0 if limit else 1.0}
    return Request("completion", {**told, "echo": True, "logprobs": 1, "seed": 0, **writer.extra})


def _echoed(writer: Writer, text: str, reply: Reply) -> tuple[list[str], list[float | None]] | None:
    """Tokens of the sent text and their log probabilities; None where the server echoed another text, or said more."""
    bare, said = writer.template.bare(text), writer.template.bare(reply.text)
    tokens = list(reply.tokens)
    own = _n_generated(writer, reply)
    whole = not own or writer.template.bare(tokens[-1]) == said[len(bare) :]
    if not said.startswith(bare) or not whole or len(tokens) != len(reply.token_logprobs):
        return None
    end = len(tokens) - own
    return tokens[:end], list(reply.token_logprobs[:end])


def _n_generated(writer: Writer, reply: Reply) -> int:
    """Tokens at the end that the server said itself: at most the one that some have to be asked for."""
    if writer.endpoint.echo_max_tokens == 0 or not reply.tokens:
        return 0
    if reply.finish_reason == "length":
        return 1
    return min(1, reply.usage.completion_tokens) if reply.usage else 0


def _from_the_end(writer: Writer, answer: PromptResponse, reply: Reply) -> ResponseLogprobs | None:
    """The score where the last tokens' texts make up the response; None where they do not, and more must be asked."""
    if reply.error:
        return ResponseLogprobs((), 0, reply.error)
    echoed = _echoed(writer, _whole(writer, answer), reply)
    if echoed is None:
        return ResponseLogprobs((), 0, "not_echoed")
    tokens, logprobs = echoed
    start = _start(tokens, answer, writer.template.end)
    return None if start is None else _checked(logprobs[start:])


def _start(tokens: Sequence[str], answer: PromptResponse, end: str) -> int | None:
    """Where the response begins among the tokens, told by their texts from the end."""
    start = len(tokens)
    if answer.stopped:
        start -= 1
        if start < 0 or tokens[start] not in (end, ""):
            return None
    left = answer.response
    while left:
        start -= 1
        if start < 0 or not left.endswith(tokens[start]):
            return None
        left = left[: len(left) - len(tokens[start])]
    # A token without text may be the first bytes of a character, or a control token that the server does not write out.
    return None if answer.response and start > 0 and tokens[start - 1] == "" else start


def _beside_the_prompt(writer: Writer, answer: PromptResponse, reply: Reply, alone: Reply) -> ResponseLogprobs:
    """The score by way of the prompt's own tokens."""
    whole = _echoed(writer, _whole(writer, answer), reply)
    prompt = _echoed(writer, _opening(writer, answer), alone) if not alone.error else None
    if whole is None or prompt is None:
        return ResponseLogprobs((), 0, alone.error or "not_echoed")
    same = _n_common(whole[0], prompt[0])
    rest, asked = whole[1][same:], prompt[1][same:]
    if not asked:
        return _checked(rest)
    if not rest or None in asked or None in rest:
        return ResponseLogprobs((), 1, "not_finite")
    given = _checked([min(0.0, math.fsum([*rest, *(-value for value in asked)]))])
    return ResponseLogprobs(given.token_logprobs, 1, given.status)


def _n_common(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(one, other, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _checked(logprobs: Sequence[float | None]) -> ResponseLogprobs:
    """A score, unless a log probability is missing or is none."""
    if not logprobs:
        return ResponseLogprobs((), 0, "empty")
    if any(value is None or math.isnan(value) or value > ROUNDING or value == -math.inf for value in logprobs):
        return ResponseLogprobs((), 0, "not_finite")
    return ResponseLogprobs(tuple(min(0.0, value) for value in logprobs), 0, "ok")
