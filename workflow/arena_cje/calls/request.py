"""A request and its reply: plain values, so that one who asks can be tested without a network.

A request is found again by all that determines its reply: where it goes, the kind of call, its parameters. Two requests
of the same parameters are one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from arena_cje.provenance import digest

if TYPE_CHECKING:
    from arena_cje.calls.endpoint import Endpoint

# Part of what identifies a request: raise it when `Reply` would hold other things for the same answer.
VERSION = 1


@dataclass(frozen=True)
class Request:
    """One call: `chat` (messages) or `completion` (a prompt as text), with its parameters as the API names them."""

    kind: Literal["chat", "completion"]
    body: Mapping[str, Any]

    def key(self, endpoint: Endpoint) -> str:
        """Name of the request at an endpoint, in the journal."""
        return digest({"call": VERSION, "endpoint": endpoint.identity, "kind": self.kind, "body": dict(self.body)})


@dataclass(frozen=True)
class Usage:
    """Tokens that a call was billed for."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Reply:
    """What came back. `refused`: the provider (or the model) declined; `too_long`: the request did not fit its context."""

    text: str = ""
    finish_reason: str | None = None
    error: Literal["refused", "too_long"] | None = None
    tokens: Sequence[str] = ()  # as text, with log probabilities where they were asked for
    token_logprobs: Sequence[float | None] = ()  # nats
    top_logprobs: Sequence[Mapping[str, float]] = ()  # by position, the likeliest tokens; where asked for
    usage: Usage | None = None  # None where the server said none, or one that cannot be
    model: str | None = None  # the version that answered
    system_fingerprint: str | None = None

    def record(self) -> dict[str, Any]:
        """As a journal record: what is not there is left out."""
        kept = {name: value for name, value in vars(self).items() if value not in (None, (), "", [])}
        if self.usage is not None:
            kept["usage"] = vars(self.usage)
        return kept

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Reply:
        """From its journal record, equal to the reply it was made of: JSON knows no tuples."""
        listed = {name: tuple(value) for name, value in record.items() if isinstance(value, list | tuple)}
        usage = record.get("usage")
        return cls(**{**record, **listed, "usage": Usage(**usage) if usage else None})


# Asks for all of them and returns the replies in their order; raises where some are left for the next run.
Ask = Callable[[Sequence[Request]], list[Reply]]
