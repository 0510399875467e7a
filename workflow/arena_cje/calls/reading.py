"""The reply in the body of an HTTP response, from servers that differ in what they send.

    text             `content` as text or as a list of parts; parts in which the model thinks are no part of the answer
    finish_reason    the server's word for why the answer ended
    top_logprobs     an alternative without a number, or with NaN, has mass 0 and is left out
    error            `refused`, or `unreadable` where the reply is whole and no text is in it

What has one meaning is read, and what is missing is None. A body that is cut off or has no choice in it raises
`UnreadableReply`: another attempt may bring the reply. One that no other attempt would change is a `Reply` with an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from arena_cje.calls.bodies import parse_json, valid_text
from arena_cje.calls.errors import ErrorBody, UnreadableReply
from arena_cje.calls.request import Reply, Usage

if TYPE_CHECKING:
    from arena_cje.calls.request import Request

# A provider may add to the prompt what was not sent (markup of the chat, a JSON schema in words), and bill it.
MAX_ADDED_TOKENS = 2000
ROUNDING = 1e-4  # nats; a log probability above zero by no more than this is a rounding error

THOUGHT = re.compile(r"think|thought|reason|summary|analysis|commentary|redacted", re.IGNORECASE)  # types of parts


def parse_reply(request: Request, content: bytes) -> Reply:
    """The reply in the body of an HTTP response; raises `UnreadableReply` where there is none."""
    try:
        body = parse_json(content)
    except ValueError as error:
        raise UnreadableReply(str(error), len(content)) from None
    if isinstance(body, dict) and body.get("error") and not body.get("choices"):
        raise ErrorBody(content)
    try:
        reply = _reply_of_body(request, body)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UnreadableReply(str(error), len(content), Reply(error="unreadable"), content[:80]) from None
    if reply.error is None and reply.ending == "broken off":
        reason = f"the server broke the answer off, `finish_reason` is {reply.finish_reason!r:.60}"
        lasting = Reply(reply.text, reply.finish_reason, "unreadable", usage=reply.usage, model=reply.model)
        raise UnreadableReply(reason, len(content), lasting)
    return reply


def _reply_of_body(request: Request, body: Any) -> Reply:
    choices = _typed(body["choices"], list, "choices")
    if not choices:
        raise ValueError("no choices")
    choice = _typed(choices[0], dict, "choice")
    usage = plausible_usage(request, body.get("usage"))
    finish_reason = "error" if choice.get("error") else _finish_reason(choice.get("finish_reason"))
    if finish_reason is None and usage and usage.completion_tokens == token_limit(request) > 0:
        finish_reason = "length"  # some servers leave it out
    ending = Reply(finish_reason=finish_reason).ending
    text, error = _text_and_error(choice, has_end=ending == "complete")
    tokens, token_logprobs, top_logprobs = _logprobs(choice.get("logprobs"))
    return Reply(
        text=text,
        finish_reason=finish_reason,
        error="refused" if ending == "declined" else error,
        tokens=tokens,
        token_logprobs=token_logprobs,
        top_logprobs=top_logprobs,
        usage=usage,
        model=_text_or_none(body.get("model")),
        system_fingerprint=_text_or_none(body.get("system_fingerprint")),
    )


def _finish_reason(value: Any) -> str | None:
    """The server's word for the end of an answer; some give an object with it."""
    return _text_or_none(value.get("type") if isinstance(value, dict) else value)


def _text_or_none(value: Any) -> str | None:
    return valid_text(value) if value and isinstance(value, str) else None


def _typed(value: Any, kind: Any, name: str) -> Any:
    """The value; raises a TypeError that names the field where it has another type."""
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` is of type {type(value).__name__}")
    return value


# The text


def _text_and_error(choice: Mapping[str, Any], *, has_end: bool) -> tuple[str, str | None]:
    """Text of a choice, and the error of the reply: the model's refusal, or a form without a text."""
    if choice.get("message") is None:  # a completion, or a chat in its form
        text, has_text = _typed(choice.get("text"), str | None, "text"), choice.get("text") is not None
        return valid_text(text or ""), None if has_text or not has_end else "unreadable"
    message = _typed(choice["message"], dict, "message")
    if refusal := message.get("refusal"):
        return valid_text(refusal) if isinstance(refusal, str) else "", "refused"
    if "content" not in message:
        # A reasoning model that is cut off before its answer has no content, and some servers then leave the field out.
        return "", None if not has_end else "unreadable"
    parts = _parts(message["content"])
    texts = [part.text for part in parts if part.kind == "text"]
    if not texts and (refusals := [part.text for part in parts if part.kind == "refusal"]):
        return "".join(refusals), "refused"
    is_readable = texts or not parts or any(part.kind == "thought" for part in parts)
    return "".join(texts), None if is_readable or not has_end else "unreadable"


class Part(NamedTuple):
    """A part of a message's content. kind: `text`, `thought`, `refusal`, or `other` (such as an image)."""

    kind: str
    text: str = ""


def _parts(content: Any) -> list[Part]:
    """The parts of a content: null has none, text is one part, a list has any number of them."""
    if content is None:
        return []
    if isinstance(content, str):
        return [Part("text", valid_text(content))]
    if isinstance(content, list):
        return [part for item in content for part in _parts(item)]
    if not isinstance(content, dict):
        return [Part("other")]
    kind = str(content.get("type") or "")
    if content.get("thought") is True or THOUGHT.search(f"{kind} {content.get('channel')}"):
        return [Part("thought")]
    if isinstance(refusal := content.get("refusal"), str) and (refusal or kind == "refusal"):
        return [Part("refusal", valid_text(refusal))]
    if kind and not re.search(r"text|message|content", kind, re.IGNORECASE):
        return [Part("other")]
    if "text" in content and content["text"] is None:
        return [Part("text")]
    for name in ("text", "content", "value", "parts"):
        if (inner := content.get(name)) is not None:
            return _parts(inner)
    return [Part("thought" if any(THOUGHT.search(name) for name in content) else "other")]


# Log probabilities

Logprobs = tuple[tuple[str, ...], tuple[float | None, ...], tuple[Mapping[str, float], ...]]
NO_LOGPROBS: Logprobs = ((), (), ())


def _logprobs(field: Any) -> Logprobs:
    """Tokens, their log probabilities (nats) and the likeliest tokens at each position, from either of the two API forms.

    Where the lists do not belong together there are none: a number must not be paired with another token.
    """
    if not isinstance(field, dict):
        return NO_LOGPROBS
    if isinstance(content := field.get("content"), list):
        entries = [entry if isinstance(entry, dict) else {} for entry in content]
        tokens, values, tops = ([entry.get(name) for entry in entries] for name in ("token", "logprob", "top_logprobs"))
    else:
        tokens, values, tops = (field.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not all(isinstance(column, list) for column in (tokens, values, tops)):
        return NO_LOGPROBS
    if len(values) != len(tokens) or len(tops) not in (0, len(tokens)) or not all(isinstance(t, str) for t in tokens):
        return NO_LOGPROBS
    has_alternatives = any(tops)
    return (
        tuple(map(valid_text, tokens)),
        tuple(map(_nats, values)),
        tuple(map(_alternatives, tops)) if has_alternatives else (),
    )


def _number(value: Any) -> float:
    """A number; NaN where the value is none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _nats(value: Any) -> float | None:
    """A log probability; None where it is no finite number."""
    number = _number(value)
    return number if math.isfinite(number) else None


def _alternatives(field: Any) -> dict[str, float]:
    """Log probabilities (nats) by token text; of two tokens with one text (parts of a character) the likelier counts.

    An alternative without a finite number has mass 0. There are none at all where a number is no log probability: the others
    would get its mass.
    """
    logprobs: dict[str, float] = {}
    for token, value in _pairs(field):
        number = _number(value)
        if number > ROUNDING:
            return {}
        if isinstance(token, str) and math.isfinite(number):
            text = valid_text(token)
            logprobs[text] = max(min(number, 0.0), logprobs.get(text, -math.inf))
    return logprobs


def _pairs(field: Any) -> Iterable[tuple[Any, Any]]:
    """Tokens and values of a list of alternatives, as an object or as a list of objects."""
    if isinstance(field, dict):
        return field.items()
    entries = [entry for entry in field if isinstance(entry, dict)] if isinstance(field, list) else []
    return [(entry.get("token"), entry.get("logprob")) for entry in entries]


# The usage


def token_limit(request: Request) -> float:
    """Largest number of new tokens that a request allows."""
    return request.body.get("max_completion_tokens", request.body.get("max_tokens", math.inf))


def plausible_usage(request: Request, reported: Any) -> Usage | None:
    """The usage that a server reports; None where its numbers are missing or impossible.

    Possible numbers are integers, at least one prompt token, no more prompt tokens than bytes of the request (and what a
    provider may add), no more completion tokens than the request allows.
    """
    if not isinstance(reported, dict):
        return None
    prompt_tokens, completion_tokens = reported.get("prompt_tokens"), reported.get("completion_tokens")
    if type(prompt_tokens) is not int or type(completion_tokens) is not int:
        return None
    limit = token_limit(request)
    # A token has at least one byte.
    largest = len(orjson.dumps(dict(request.body))) + MAX_ADDED_TOKENS
    if not 0 < prompt_tokens <= largest or not 0 <= completion_tokens <= limit:
        return None
    return Usage(prompt_tokens, completion_tokens)
