"""Policies behind APIs: what they are asked to write, and to score.

    draw    chat with messages, or complete the text of a template: one request a response
    score   log p(a | x) = sum_t log p(a_t | x, a_1 .. a_{t-1})   nats, echoed by a completions endpoint for given text

Scoring sends template(x) + a, with the token that ended `a` where one did, and reads the echoed log probabilities of the
tokens after the prompt. They are found from the end, where the tokens' texts make up the response. Where none begins with
it (a token may hold the end of the prompt and the beginning of the response), the prompt is sent by itself as well: if its
tokens are the first of the whole, the rest are the response's; otherwise

    log p(a | x) = log p(tokens of x a) - log p(tokens of x)    from the first token that differs, at most 0

which is counted as a boundary. Base and targets are scored in the same way. Log probabilities of an API are those at
temperature 1 without truncation, whatever the policy's sampling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from arena_cje.calls import apis
from arena_cje.calls.request import Request
from arena_cje.hosted import template as hosted_template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.config.records import Config, ModelBlock, Policy
    from arena_cje.hosted.template import Template

# Raise when a drawn response would be read otherwise, or a log probability differently from the same reply.
VERSION = 1

# What servers add to sampling by default, off: text must come from the distribution that is scored. vLLM takes defaults from
# the model's own generation_config.json; llama_cpp.server penalises repetition by 1.1, under a name that only servers of
# one's own know.
PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
OWN_PLAIN = {"repeat_penalty": 1.0}


@dataclass(frozen=True)
class Writer:
    """A policy behind an API."""

    endpoint: Endpoint
    model: str
    system_prompt: str | None = None
    template: Template | None = None  # None chats
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    extra: Mapping[str, Any] = field(default_factory=dict)

    def accepts(self, prompt: str) -> bool:
        """May the prompt be sent? Not as text that holds the model's own control tokens."""
        return self.template is None or not self.template.forges(prompt)

    def request(self, prompt: str, seed: int) -> Request:
        """The request for one response. A greedy policy sends no seed: all its draws are one request."""
        how = {"temperature": self.temperature, "top_p": self.top_p} | ({"seed": seed} if self.temperature else {})
        if self.template is None:
            body = chat_body(
                self.endpoint,
                model=self.model,
                messages=messages(self.system_prompt, prompt),
                max_tokens=self.max_tokens,
                **how,
                extra=self.extra,
            )
            return Request("chat", body)
        text = self.template.render(self.system_prompt, prompt)
        told = {"model": self.model, "prompt": text, "max_tokens": self.max_tokens, "stop": [self.template.end]}
        plain = PLAIN | (OWN_PLAIN if self.endpoint.base_url else {})
        return Request("completion", {**told, **how, **plain, **self.extra})


def writer(config: Config, policy: Policy, system_prompt: str | None, template: str | Path | None) -> Writer:
    """The policy of a configuration block; `template` is its file, if it has one (empty as a rule's input)."""
    return Writer(
        endpoint=config.endpoint(policy),
        model=policy.model,
        system_prompt=system_prompt,
        template=hosted_template.load(template) if template else None,
        temperature=policy.temperature,
        top_p=policy.top_p,
        max_tokens=policy.max_tokens,
        extra=policy.extra,
    )


def messages(system_prompt: str | None, text: str) -> list[dict[str, str]]:
    """A conversation of one turn."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": text}]


def request_identity(block: ModelBlock, endpoint: Endpoint, *, scores_text: bool = False) -> dict[str, Any]:
    """The part of a request's identity that names model and endpoint: a parameter of the rules whose jobs call an API."""
    echo = {"echo_max_tokens": endpoint.echo_max_tokens} if scores_text else {}
    return {"model": block.model, **endpoint.identity, **echo, "extra": block.extra}


def token_limit(endpoint: Endpoint, n: int) -> dict[str, int]:
    """The limit on new tokens, under the name that the server knows."""
    return {apis.get(endpoint.api).token_limit(endpoint.base_url): n}


def chat_body(
    endpoint: Endpoint,
    *,
    model: str,
    messages: Sequence[Mapping[str, str]],
    max_tokens: int,
    temperature: float | None,
    top_p: float | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Parameters of a chat; what is None is not sent."""
    told = {"temperature": temperature, "top_p": top_p, "seed": seed}
    given = {name: value for name, value in told.items() if value is not None}
    return {"model": model, "messages": list(messages), **token_limit(endpoint, max_tokens), **given, **(extra or {})}


def seed_of(*who: Any) -> int:
    """A seed of 31 bits, which every API takes, for one response: the same whoever shares the run."""
    return int.from_bytes(blake2b("/".join(map(str, who)).encode(), digest_size=4).digest(), "big") >> 1
