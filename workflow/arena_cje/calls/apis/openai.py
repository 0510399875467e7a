"""OpenAI's API, and every server that speaks it: llama.cpp's, vLLM's, Anthropic's, Together's.

It chats, and gives log probabilities of its own tokens. Whether it scores given text (a completions endpoint that echoes log
probabilities) differs between servers: `completions` of the provider says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import ModuleType

    import openai

# Written here, so that a variable of the environment cannot send requests to another server.
ADDRESS = "https://api.openai.com/v1"
SCORES_TEXT = False
ECHO_MAX_TOKENS = 1
TOP_LOGPROBS = 20


def token_limit(base_url: str | None) -> str:
    """Name of the parameter that limits new tokens; OpenAI's own server has renamed it, others have not."""
    return "max_completion_tokens" if base_url is None else "max_tokens"


def address(base_url: str | None) -> str:
    """The address as the client takes it: with /v1 where no path is given."""
    if base_url is None:
        return ADDRESS
    url = base_url.rstrip("/")
    return url if urlsplit(url).path else f"{url}/v1"


def client(base_url: str | None, key: str | None, timeout: float) -> openai.AsyncOpenAI:
    """A client that tries each request once; retries are the runner's. Without a key it sends the word `none`."""
    import openai

    return openai.AsyncOpenAI(base_url=address(base_url), api_key=key or "none", timeout=timeout, max_retries=0)


def sdk() -> ModuleType:
    """The module of the client, for its exceptions."""
    import openai

    return openai
