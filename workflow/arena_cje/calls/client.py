"""One request to an API, and what came back as a `Reply`.

The provider's own client sends it; what comes back is read here, since an answer may be cut off, empty or of another
form than promised, and must then be asked for again instead of passing for a reply. Nothing is tried twice here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.calls import apis, errors
from arena_cje.calls.errors import TransientError, UnreadableReply
from arena_cje.calls.request import Reply, Request, Usage
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from arena_cje.calls.endpoint import Endpoint

# A provider may show a model more than we send (a chat's markup, a schema in words), which is billed too.
MARKUP = 2000  # tokens


class Client:
    """A provider's client with a key: `async with Client(endpoint) as client: await client.send(request)`."""

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        self._key = _usable(endpoint)
        # Our own clock comes first: theirs starts anew with each piece of an answer, and one of them calls a lost connection
        # a timeout too.
        self._sdk: Any = apis.get(endpoint.api).client(endpoint.base_url, self._key, 2 * endpoint.timeout)
        # Only now are their modules imported, which must not count as waiting for an answer.
        self._create = {
            "chat": self._sdk.chat.completions.with_raw_response.create,
            "completion": self._sdk.completions.with_raw_response.create,
        }
        # They tell of each request at the level of our progress lines.
        for name in ("httpx", "httpx2", "httpcore", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sdk.close()

    @property
    def keys(self) -> tuple[str, ...]:
        """What must not be repeated."""
        return (self._key,) if self._key else ()

    async def send(self, request: Request) -> Reply:
        """Send it once. Raises `TransientError` where another attempt may do better, and `UserError` where none can."""
        sdk_errors = apis.get(self.endpoint.api).sdk()
        try:
            async with asyncio.timeout(self.endpoint.timeout):
                content = await self._send(request)
        except TimeoutError:
            raise TransientError("timeout", f"no answer in {self.endpoint.timeout:g} s") from None
        except sdk_errors.APIConnectionError as error:
            cause = error.__cause__ or error
            words = errors.one_line(f"{type(cause).__name__} {cause}", self.keys)
            raise TransientError("connection lost", words) from None
        except sdk_errors.APIStatusError as error:
            response = error.response
            found = errors.classify_status(
                self.endpoint,
                str(request.body.get("model")),
                response.status_code,
                response.headers,
                response.content,
                self.keys,
            )
            if isinstance(found, Exception):
                raise found from None
            return Reply(error=found, usage=Usage(0, 0))  # what is declined unread is not billed
        try:
            return read(request, content)
        except UnreadableReply as error:
            raise UnreadableReply(errors.one_line(error.words, self.keys), error.length) from None

    async def _send(self, request: Request) -> bytes:
        body = dict(request.body)
        what = "messages" if request.kind == "chat" else "prompt"
        # Only what every client has is named; the rest goes as it is, in the words of the server that is asked.
        named = {name: body.pop(name) for name in ("model", what)}
        answer = await self._create[request.kind](**named, extra_body=body)
        return answer.http_response.content


def _usable(endpoint: Endpoint) -> str | None:
    """The key, if a header can hold it."""
    key = endpoint.key()
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(
            f"provider {endpoint.provider!r}: the environment variable {endpoint.api_key_env} holds characters that no key "
            "has (blanks, line ends or letters beyond ASCII); set it to the key alone"
        )
    return key


def read(request: Request, content: bytes) -> Reply:
    """The reply in an answer; raises `UnreadableReply` where there is none."""
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UnreadableReply(f"not valid JSON, {error}", len(content)) from None
    try:
        return _reply(request, answer)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UnreadableReply(f"{error} in {content[:80]!r}", len(content)) from None


def _reply(request: Request, answer: Any) -> Reply:
    choices = _typed(answer["choices"], list, "choices")
    if not choices:
        raise ValueError("no choices")
    choice = _typed(choices[0], dict, "choice")
    finish = _typed(choice.get("finish_reason"), str | None, "finish_reason")
    text, declined = _text(request, choice, finish)
    tokens, token_logprobs, top_logprobs = _logprobs(choice.get("logprobs"))
    return Reply(
        text=text,
        finish_reason=finish,
        error="refused" if declined or finish == "content_filter" else None,
        tokens=tokens,
        token_logprobs=token_logprobs,
        top_logprobs=top_logprobs,
        usage=usage(request, answer.get("usage")),
        model=_typed(answer.get("model"), str | None, "model"),
        system_fingerprint=_typed(answer.get("system_fingerprint"), str | None, "system_fingerprint"),
    )


def _text(request: Request, choice: Mapping[str, Any], finish: str | None) -> tuple[str, bool]:
    """What was said, and whether it was that nothing will be said."""
    if request.kind == "completion":
        return _typed(choice["text"], str, "text"), False
    message = _typed(choice["message"], dict, "message")
    if refusal := _typed(message.get("refusal"), str | None, "refusal"):
        return refusal, True
    # A model that thinks first and is cut off has said nothing, and some servers leave it out then.
    said = message.get("content") if finish in ("length", "content_filter") else message["content"]
    return _typed(said, str | None, "content") or "", False


def _typed(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` is of type {type(value).__name__}")
    return value


Logprobs = tuple[tuple[str, ...], tuple[float | None, ...], tuple[Mapping[str, float], ...]]


def _logprobs(said: Any) -> Logprobs:
    """Tokens, their log probabilities in nats and the likeliest in their places, from either form that is in use."""
    if said is None:
        return (), (), ()
    _typed(said, dict, "logprobs")
    if (content := said.get("content")) is not None:
        tokens = [_typed(one["token"], str, "token") for one in content]
        values = [_nats(one["logprob"]) for one in content]
        tops = [_likeliest((top["token"], top["logprob"]) for top in one.get("top_logprobs") or ()) for one in content]
    elif (tokens := said.get("tokens")) is not None:
        tokens = [_typed(token, str, "token") for token in tokens]
        values = [None if value is None else _nats(value) for value in said["token_logprobs"]]
        tops = [_likeliest((top or {}).items()) for top in said.get("top_logprobs") or ()]
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


def _likeliest(pairs: Any) -> dict[str, float]:
    """Tokens and nats; of two tokens of the same text (halves of a character) the likelier stays."""
    found: dict[str, float] = {}
    for token, value in pairs:
        _typed(token, str, "token")
        found[token] = max(_nats(value), found.get(token, float("-inf")))
    return found


def usage(request: Request, said: Any) -> Usage | None:
    """Tokens billed, where the server's numbers can be: whole, some read, no more written than was asked for."""
    if not isinstance(said, dict):
        return None
    read_, written = said.get("prompt_tokens"), said.get("completion_tokens")
    if type(read_) is not int or type(written) is not int:
        return None
    asked = request.body.get("max_completion_tokens", request.body.get("max_tokens"))
    # A token has at least a byte.
    largest = len(orjson.dumps(dict(request.body))) + MARKUP
    if not 0 < read_ <= largest or written < 0 or (asked is not None and written > asked):
        return None
    return Usage(read_, written)


def estimated(request: Request, n_bytes: int) -> Usage:
    """Tokens of a request and of `n_bytes` of an answer where the server says none: about four bytes each."""
    shown = request.body["messages" if request.kind == "chat" else "prompt"]
    texts = [str(message.get("content") or "") for message in shown] if request.kind == "chat" else [str(shown)]
    return Usage(max(1, -(-sum(len(text.encode()) for text in texts) // 4)), -(-n_bytes // 4))
