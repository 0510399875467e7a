"""One request to an API, and its `Reply`.

The provider's own client sends the request; `reading` parses the body of the HTTP response. A body that is cut off, empty or
of an unexpected form raises `UnreadableReply`, so that it is requested again instead of being taken for a reply; where the
server sends it again and again, the reply is an error. There are no retries in this module.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from arena_cje.calls import apis, bodies, errors, transport
from arena_cje.calls.errors import ErrorBody, OutputLimit, TransientError, UnreadableReply
from arena_cje.calls.reading import parse_reply
from arena_cje.calls.request import Reply, Request, Usage
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.calls.endpoint import Endpoint

log = logging.getLogger(__name__)

MAX_UNREADABLE = 3  # replies to one request that are unreadable for the same reason, after which that is the reply


class Client:
    """A provider's client with an API key: `async with Client(endpoint) as client: await client.send(request)`."""

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        self._api_key = _checked_api_key(endpoint)
        # Time is measured in `send`: the clients start their timeout anew with each piece of a body, and one of them reports
        # a lost connection as a timeout.
        self._sdk: Any = apis.get(endpoint.api).client(endpoint.base_url, self._api_key, 2 * endpoint.timeout)
        bodies.limit_bodies(self._sdk._client)
        self._n_unreadable: Counter[tuple[str, str]] = Counter()  # by key of the request and reason
        # The clients import these modules on first access, which must not count as time of a request.
        self._create = {
            "chat": self._sdk.chat.completions.with_raw_response.create,
            "completion": self._sdk.completions.with_raw_response.create,
        }
        # These libraries log every request at the level of the progress lines, or, by an environment variable, with its prompt.
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
        except (sdk_errors.APIConnectionError, bodies.UnreadableBody) as error:
            cause = error.__cause__ or error
            if isinstance(cause, transport.RedirectRefused):  # one of the clients wraps all errors
                raise self._redirect_error(cause) from None
            if isinstance(cause, bodies.UnreadableBody):
                return self._unreadable(request, UnreadableReply(str(cause), 0, Reply(error="unreadable")))
            message = errors.one_line(f"{type(cause).__name__} {cause}", self.secrets)
            raise TransientError("connection lost", message) from None
        except sdk_errors.APIStatusError as error:
            response = error.response
            return self._declined(request, response.status_code, response.headers, response.content)
        try:
            return _redacted(parse_reply(request, content), self.secrets)
        except ErrorBody as error:
            return self._declined(request, error.status, {}, error.body)
        except UnreadableReply as error:
            return self._unreadable(request, error)

    def _declined(self, request: Request, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
        """The reply where the server reports an error that belongs to this request alone; raises any other."""
        model = str(request.body.get("model"))
        meaning = errors.classify_status(
            self.endpoint, model, status, headers, body, self.secrets, parameters=request.body
        )
        if isinstance(meaning, OutputLimit):
            return Reply(finish_reason="length")
        if isinstance(meaning, Exception):
            raise meaning from None
        # A request that is declined before it is read is not billed.
        return Reply(error=meaning, usage=None if meaning == "unreadable" else Usage(0, 0))

    def _unreadable(self, request: Request, error: UnreadableReply) -> Reply:
        """The error as the reply, where the server keeps sending what cannot be read; raises it before."""
        key = (request.key(self.endpoint), error.reason)
        self._n_unreadable[key] += error.lasting is not None
        message = errors.one_line(error.message, self.secrets)
        if error.lasting is not None and self._n_unreadable[key] >= min(MAX_UNREADABLE, self.endpoint.max_attempts):
            log.warning(
                "provider %r: an unreadable reply is recorded without a result: %s", self.endpoint.provider, message
            )
            return _redacted(error.lasting, self.secrets)
        raise UnreadableReply(message, error.length, error.lasting) from None

    def _redirect_error(self, error: transport.RedirectRefused) -> UserError:
        location = errors.one_line(error.location, self.secrets)
        return UserError(
            f"provider {self.endpoint.provider!r}: the server answers with status {error.status}, a redirect to {location}, "
            "which is not followed; if that address is correct, set `base_url` to it"
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
            f"provider {endpoint.provider!r}: the environment variable {endpoint.api_key_env} contains characters that an "
            "API key cannot have (spaces, line breaks or non-ASCII letters); set it to the key alone"
        )
    return key


def estimate_usage(request: Request, n_bytes: int) -> Usage:
    """Usage of a request and of `n_bytes` of its reply where the server reports none: one token for four bytes."""
    content = request.body["messages" if request.kind == "chat" else "prompt"]
    texts = [str(message.get("content") or "") for message in content] if request.kind == "chat" else [str(content)]
    return Usage(max(1, -(-sum(len(text.encode()) for text in texts) // 4)), -(-n_bytes // 4))
