"""OpenAI's API, which many servers implement: llama.cpp, vLLM, Anthropic, Together.

It has chats, and log probabilities of the tokens that it generates. Servers differ in whether their completions endpoint returns
log probabilities of a text that it is sent; `completions` of the provider states it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from arena_cje.calls import transport

if TYPE_CHECKING:
    from types import ModuleType

    import openai

# Stated here, so that no environment variable can send requests to another server.
ADDRESS = "https://api.openai.com/v1"
ECHOES_LOGPROBS = False
ECHO_MAX_TOKENS = 1
TOP_LOGPROBS = 20


def token_limit(base_url: str | None) -> str:
    """Name of the parameter that limits new tokens: OpenAI's own server has renamed it, other servers have not."""
    return "max_completion_tokens" if base_url is None else "max_tokens"


def address(base_url: str | None) -> str:
    """Base URL as the client takes it: /v1 is added where the URL has no path."""
    if base_url is None:
        return ADDRESS
    url = base_url.rstrip("/")
    return url if urlsplit(url).path else f"{url}/v1"


def client(base_url: str | None, key: str | None, timeout: float) -> openai.AsyncOpenAI:
    """An asynchronous client without retries, which are the runner's task. Without a key it sends the word `none`."""
    import openai

    return transport.client(openai.AsyncOpenAI, openai.DefaultAsyncHttpxClient, address(base_url), key, timeout)


def sdk() -> ModuleType:
    """The client's package, for its exceptions."""
    import openai

    return openai
