"""Policies behind APIs: the requests for their responses.

A policy without a template sends chat messages; one with a template sends the conversation as text to a completions endpoint.
Each response is one request. `echo` requests the log probabilities of given responses: an API returns those at temperature 1
without truncation, whatever the policy's sampling.
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
    from arena_cje.config.records import Config
    from arena_cje.config.records.models import ModelBlock, Policy
    from arena_cje.hosted.template import Template

# Raise it when the same reply would give another response or other log probabilities.
VERSION = 2

# Parameters that switch off what servers add to sampling by default: responses must come from the distribution whose log
# probabilities are requested. vLLM takes its defaults from the model's generation_config.json; llama_cpp.server has a repetition
# penalty of 1.1, under a name that only self-hosted servers accept.
NEUTRAL_SAMPLING = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
NEUTRAL_SAMPLING_SELF_HOSTED = {"repeat_penalty": 1.0}


@dataclass(frozen=True)
class Writer:
    """A policy behind an API: its model, prompts and sampling."""

    endpoint: Endpoint
    model: str
    system_prompt: str | None = None
    template: Template | None = None  # None: requests are chats
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    extra: Mapping[str, Any] = field(default_factory=dict)  # further parameters of each request

    def accepts(self, prompt: str) -> bool:
        """Whether a prompt may be sent: as text it must not contain the model's control tokens."""
        return self.template is None or not self.template.has_control_tokens(prompt)

    def request(self, prompt: str, seed: int) -> Request:
        """The request for one response. A greedy policy has no seed, so that all its draws are one request."""
        sampling: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p}
        sample = None
        if self.temperature:
            seed_parameter, sample = seed_or_sample(self.endpoint, seed)
            sampling |= seed_parameter
        if self.template is None:
            body = chat_body(
                self.endpoint,
                model=self.model,
                messages=messages(self.system_prompt, prompt),
                max_tokens=self.max_tokens,
                **sampling,
                extra=self.extra,
            )
            return Request("chat", body, sample)
        text = self.template.render(self.system_prompt, prompt)
        body = {"model": self.model, "prompt": text, "max_tokens": self.max_tokens, "stop": [self.template.end]}
        neutral = NEUTRAL_SAMPLING | (NEUTRAL_SAMPLING_SELF_HOSTED if self.endpoint.base_url else {})
        return Request("completion", with_extra({**body, **sampling, **neutral}, self.extra), sample)


def writer(config: Config, policy: Policy, system_prompt: str | None, template: str | Path | None) -> Writer:
    """The writer of a policy block of the configuration.

    system_prompt: its text. template: path of its chat template; None or empty where it has none.
    """
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
    """Chat messages of a conversation with one user message."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": text}]


def request_identity(block: ModelBlock, endpoint: Endpoint, *, echoes_logprobs: bool = False) -> dict[str, Any]:
    """The part of a request's identity that names model and endpoint: a parameter of the rules whose jobs call an API.

    echoes_logprobs: whether the requests are for log probabilities of given responses.
    """
    echo = {"echo_max_tokens": endpoint.echo_max_tokens} if echoes_logprobs else {}
    settings = {"token_limit": endpoint.token_limit, "seed": None if endpoint.seed == "send" else endpoint.seed}
    form = {name: value for name, value in settings.items() if value is not None}
    return {"model": block.model, **endpoint.identity, **echo, **form, "extra": block.extra}


def token_limit(endpoint: Endpoint, n: int) -> dict[str, int]:
    """The parameter that limits new tokens to `n`, under the name that the server accepts."""
    return {endpoint.token_limit or apis.get(endpoint.api).token_limit(endpoint.base_url): n}


def seed_or_sample(endpoint: Endpoint, seed: int) -> tuple[dict[str, int], int | None]:
    """The parameter `seed`, and None; or no parameter, and the seed as the key that distinguishes requests without it."""
    return ({"seed": seed}, None) if endpoint.seed == "send" else ({}, seed)


def with_extra(body: Mapping[str, Any], extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Parameters of a request with those of `extra`; one that is null there is left out."""
    extra = extra or {}
    return {name: value for name, value in {**body, **extra}.items() if name not in extra or value is not None}


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
    """Parameters of a chat request, without those that are None."""
    optional = {"temperature": temperature, "top_p": top_p, "seed": seed}
    sampling = {name: value for name, value in optional.items() if value is not None}
    body = {"model": model, "messages": list(messages), **token_limit(endpoint, max_tokens), **sampling}
    return with_extra(body, extra)


def seed_of(*parts: Any) -> int:
    """Seed of one response: a hash of the parts (such as policy and prompt) of 31 bits, which every API accepts."""
    return int.from_bytes(blake2b("/".join(map(str, parts)).encode(), digest_size=4).digest(), "big") >> 1
