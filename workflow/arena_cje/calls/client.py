"""One request to an API, and its `Reply`.

The provider's own client sends the request; the body of the HTTP response is parsed here. A body that is cut off, empty or of
an unexpected form raises `UnreadableReply`, so that it is requested again instead of being taken for a reply. There are no
retries in this module.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.calls import apis, errors, transport
from arena_cje.calls.errors import TransientError, UnreadableReply
from arena_cje.calls.request import Reply, Request, Usage
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.calls.endpoint import Endpoint

# A provider may add to the prompt what was not sent (markup of the chat, a JSON schema in words), and bill it.
MAX_ADDED_TOKENS = 2000


class Client:
    """A provider's client with an API key: `async with Client(endpoint) as client: await client.send(request)`."""

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        self._api_key = _checked_api_key(endpoint)
        # Time is measured in `send`: the clients start their timeout anew with each piece of a body, and one of them reports
        # a lost connection as a timeout.
        self._sdk: Any = apis.get(endpoint.api).client(endpoint.base_url, self._api_key, 2 * endpoint.timeout)
        # The clients import these modules on first access, which must not count as time of a request.
        self._create = {
            "chat": self._sdk.chat.completions.with_raw_response.create,
            "completion": self._sdk.completions.with_raw_response.create,
        }
        # These libraries log every request at the level of the progress lines, or, if the environment says so, with its prompt.
        for name in ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "fireworks"):
            logging.getLogger(name).setLevel(logging.WARNING)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sdk.close()

    @property
    def secrets(self) -> tuple[str, ...]:
        """API keys that no message may repeat."""
        return (self._api_key,) if self._api_key else ()

    async def send(self, request: Request) -> Reply:
        """Send the request once.

        Raises `TransientError` where another attempt may succeed, and `UserError` where none can.
        """
        sdk_errors = apis.get(self.endpoint.api).sdk()
        try:
            async with asyncio.timeout(self.endpoint.timeout):
                content = await self._response_body(request)
        except TimeoutError:
            raise TransientError("timeout", f"no reply within {self.endpoint.timeout:g} s") from None
        except transport.RedirectRefused as error:
            raise self._redirect_error(error) from None
        except sdk_errors.APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, transport.RedirectRefused):  # one of the clients wraps all errors
                raise self._redirect_error(cause) from None
            message = errors.one_line(f"{type(cause).__name__} {cause}", self.secrets)
            raise TransientError("connection lost", message) from None
        except sdk_errors.APIStatusError as error:
            response = error.response
            meaning = errors.classify_status(
                self.endpoint,
                str(request.body.get("model")),
                response.status_code,
                response.headers,
                response.content,
                self.secrets,
            )
            if isinstance(meaning, Exception):
                raise meaning from None
            return Reply(error=meaning, usage=Usage(0, 0))  # a request that is declined before it is read is not billed
        try:
            return _redacted(parse_reply(request, content), self.secrets)
        except UnreadableReply as error:
            raise UnreadableReply(errors.one_line(error.message, self.secrets), error.length) from None

    def _redirect_error(self, error: transport.RedirectRefused) -> UserError:
        location = errors.one_line(error.location, self.secrets)
        return UserError(
            f"provider {self.endpoint.provider!r}: the server answers with status {error.status}, a redirect to {location}, "
            "where no request is sent; if that address is right, set `base_url` to it"
        )

    async def _response_body(self, request: Request) -> bytes:
        body = dict(request.body)
        text_parameter = "messages" if request.kind == "chat" else "prompt"
        # Every client has these two parameters; the others are passed on as they are, since servers differ in their names.
        required = {name: body.pop(name) for name in ("model", text_parameter)}
        response = await self._create[request.kind](**required, extra_body=body)
        return response.http_response.content


def _redacted(reply: Reply, keys: Sequence[str]) -> Reply:
    """The reply without API keys: what a server repeats of its request must reach no file."""
    if not keys:
        return reply
    texts = {
        name: errors.redact_reply([text], keys)[0]
        for name in ("text", "finish_reason", "model", "system_fingerprint")
        if (text := getattr(reply, name)) is not None
    }
    # Alternatives are many and short; a look at all of them at once is quick.
    alternatives = ["\n".join(token for logprobs in reply.top_logprobs for token in logprobs)]
    if errors.redact_reply(alternatives, keys) != alternatives:
        top_logprobs = [
            {errors.redact_reply([token], keys)[0]: value for token, value in logprobs.items()}
            for logprobs in reply.top_logprobs
        ]
        reply = replace(reply, top_logprobs=tuple(top_logprobs))
    return replace(reply, tokens=tuple(errors.redact_reply(reply.tokens, keys)), **texts)


def _checked_api_key(endpoint: Endpoint) -> str | None:
    """The API key; raises a `UserError` where an HTTP header cannot hold it."""
    key = endpoint.api_key()
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(
            f"provider {endpoint.provider!r}: the environment variable {endpoint.api_key_env} holds characters that an API key "
            "cannot have (spaces, line breaks or non-ASCII letters); set it to the key alone"
        )
    return key


def parse_reply(request: Request, content: bytes) -> Reply:
    """The reply in the body of an HTTP response; raises `UnreadableReply` where there is none."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UnreadableReply(f"not valid JSON, {error}", len(content)) from None
    try:
        return _reply_of_body(request, body)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UnreadableReply(f"{error} in {content[:80]!r}", len(content)) from None


def _reply_of_body(request: Request, body: Any) -> Reply:
    choices = _typed(body["choices"], list, "choices")
    if not choices:
        raise ValueError("no choices")
    choice = _typed(choices[0], dict, "choice")
    finish_reason = _typed(choice.get("finish_reason"), str | None, "finish_reason")
    text, is_refusal = _text_and_refusal(request, choice, finish_reason)
    tokens, token_logprobs, top_logprobs = _logprobs(choice.get("logprobs"))
    return Reply(
        text=text,
        finish_reason=finish_reason,
        error="refused" if is_refusal or finish_reason == "content_filter" else None,
        tokens=tokens,
        token_logprobs=token_logprobs,
        top_logprobs=top_logprobs,
        usage=plausible_usage(request, body.get("usage")),
        model=_typed(body.get("model"), str | None, "model"),
        system_fingerprint=_typed(body.get("system_fingerprint"), str | None, "system_fingerprint"),
    )


def _text_and_refusal(request: Request, choice: Mapping[str, Any], finish_reason: str | None) -> tuple[str, bool]:
    """Text of a choice, and whether it is the model's refusal."""
    if request.kind == "completion":
        return _typed(choice["text"], str, "text"), False
    message = _typed(choice["message"], dict, "message")
    if refusal := _typed(message.get("refusal"), str | None, "refusal"):
        return refusal, True
    # A reasoning model that is cut off before its answer has no content, and some servers then leave the field out.
    cut = finish_reason in ("length", "content_filter")
    content = message.get("content") if cut else message["content"]
    return _typed(content, str | None, "content") or "", False


def _typed(value: Any, kind: Any, name: str) -> Any:
    """The value; raises a TypeError that names the field where it has another type."""
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` is of type {type(value).__name__}")
    return value


Logprobs = tuple[tuple[str, ...], tuple[float | None, ...], tuple[Mapping[str, float], ...]]


def _logprobs(field: Any) -> Logprobs:
    """Tokens, their log probabilities (nats) and the likeliest tokens at each position, from either of the two API forms."""
    if field is None:
        return (), (), ()
    _typed(field, dict, "logprobs")
    if (content := field.get("content")) is not None:
        tokens = [_typed(entry["token"], str, "token") for entry in content]
        values = [_nats(entry["logprob"]) for entry in content]
        tops = [
            _top_logprobs((top["token"], top["logprob"]) for top in entry.get("top_logprobs") or ())
            for entry in content
        ]
    elif (tokens := field.get("tokens")) is not None:
        tokens = [_typed(token, str, "token") for token in tokens]
        values = [None if value is None else _nats(value) for value in field["token_logprobs"]]
        tops = [_top_logprobs((top or {}).items()) for top in field.get("top_logprobs") or ()]
    else:
        return (), (), ()
    if len(values) != len(tokens) or len(tops) not in (0, len(tokens)):
        raise ValueError(
            f"{len(values)} log probabilities and {len(tops)} lists of alternatives for {len(tokens)} tokens"
        )
    return tuple(tokens), tuple(values), tuple(tops) if any(tops) else ()


def _nats(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a log probability is of type {type(value).__name__}")
    return float(value)


def _top_logprobs(pairs: Any) -> dict[str, float]:
    """Log probabilities (nats) by token text; of two tokens with one text (parts of a character) the likelier counts."""
    logprobs: dict[str, float] = {}
    for token, value in pairs:
        _typed(token, str, "token")
        logprobs[token] = max(_nats(value), logprobs.get(token, float("-inf")))
    return logprobs


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
    limit = request.body.get("max_completion_tokens", request.body.get("max_tokens"))
    # A token has at least one byte.
    largest = len(orjson.dumps(dict(request.body))) + MAX_ADDED_TOKENS
    if not 0 < prompt_tokens <= largest or completion_tokens < 0 or (limit is not None and completion_tokens > limit):
        return None
    return Usage(prompt_tokens, completion_tokens)


def estimate_usage(request: Request, n_bytes: int) -> Usage:
    """Usage of a request and of `n_bytes` of its reply where the server reports none: one token for four bytes."""
    content = request.body["messages" if request.kind == "chat" else "prompt"]
    texts = [str(message.get("content") or "") for message in content] if request.kind == "chat" else [str(content)]
    return Usage(max(1, -(-sum(len(text.encode()) for text in texts) // 4)), -(-n_bytes // 4))
