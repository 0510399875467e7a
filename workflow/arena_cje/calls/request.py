"""A request and its reply as plain values, so that code which makes requests can be tested without a network.

The journal stores a reply under the key of its request: a hash of the endpoint, the kind of call and its parameters. Two
requests with equal parameters have one key and share one reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from arena_cje.provenance import digest

if TYPE_CHECKING:
    from arena_cje.calls.endpoint import Endpoint

# Part of the key of a request: raise it when `Reply` would hold other values for the same response of the server.
VERSION = 1

# Words of servers for why an answer ended, from the rarest meaning; any other word, or none, stands for its own end.
ENDINGS = {
    "declined": re.compile(
        r"filter|safety|sensitive|recitation|blocklist|prohibited|spii|refus|moderat|guardrail", re.I
    ),
    "broken off": re.compile(
        r"abort|cancel|error|time_?out|interrupt|insufficient|network|unavailable|overload|fail", re.I
    ),
    "cut": re.compile(r"length|max|limit|truncat|incomplete|partial|budget", re.I),
}


@dataclass(frozen=True)
class Request:
    """One call: `chat` (messages) or `completion` (a prompt as text), with its parameters under the API's names.

    sample: distinguishes requests with equal parameters, where several replies to one request are wanted and no seed is sent.
    """

    kind: Literal["chat", "completion"]
    body: Mapping[str, Any]
    sample: int | None = None

    def key(self, endpoint: Endpoint) -> str:
        """Key of the request at an endpoint, under which the journal stores its reply."""
        sample = {} if self.sample is None else {"sample": self.sample}
        call = {"call": VERSION, "endpoint": endpoint.identity, "kind": self.kind, "body": dict(self.body)}
        return digest(call | sample)


@dataclass(frozen=True)
class Usage:
    """Tokens that a call was billed for."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Reply:
    """What the server returned for a request.

    error: `refused` where the provider or the model declined, `too_long` where the request exceeds the model's context,
    `unreadable` where no text could be read from what the server sends for this request.
    """

    text: str = ""
    finish_reason: str | None = None
    error: Literal["refused", "too_long", "unreadable"] | None = None
    tokens: Sequence[str] = ()  # texts of the tokens, where log probabilities were requested
    token_logprobs: Sequence[float | None] = ()  # nats
    top_logprobs: Sequence[Mapping[str, float]] = ()  # nats of the likeliest tokens at each position, where requested
    usage: Usage | None = None  # None where the server reported no usable numbers
    model: str | None = None  # model version that the server reports
    system_fingerprint: str | None = None

    @property
    def ending(self) -> Literal["complete", "cut", "broken off", "declined"]:
        """How the answer ended: by itself, at the limit of tokens, at a fault of the server, or at the provider's filter."""
        matches = (name for name, words in ENDINGS.items() if words.search(self.finish_reason or ""))
        return next(matches, "complete")

    def record(self) -> dict[str, Any]:
        """The reply as a journal record, without empty fields."""
        fields = {name: value for name, value in vars(self).items() if value not in (None, (), "", [])}
        if self.usage is not None:
            fields["usage"] = vars(self.usage)
        return fields

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Reply:
        """The reply of a journal record, equal to the one that was written: JSON lists become tuples again."""
        tuples = {name: tuple(value) for name, value in record.items() if isinstance(value, list | tuple)}
        usage = record.get("usage")
        return cls(**{**record, **tuples, "usage": Usage(**usage) if usage else None})


# A function that returns the replies to all of its requests, in their order. It raises a `UserError` where some have no
# reply; the next run sends those again.
Ask = Callable[[Sequence[Request]], list[Reply]]
