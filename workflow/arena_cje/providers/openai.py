"""OpenAI's API, and every server that speaks it: llama.cpp's, vLLM's, Anthropic's, Together's.

It chats, and tells log probabilities of what it says itself. Whether it scores given text (a completions endpoint that
echoes log probabilities) differs between servers: `completions` of the provider says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import openai

ADDRESS = "https://api.openai.com/v1"  # said here, so that a variable of the environment cannot change who answers
CAN = frozenset({"complete", "logprobs"})


def address(base_url: str | None) -> str:
    """The address as the client takes it: with /v1 where no path is given."""
    if base_url is None:
        return ADDRESS
    url = base_url.rstrip("/")
    return url if urlsplit(url).path else f"{url}/v1"


def client(base_url: str | None, key: str | None, timeout: float) -> openai.AsyncOpenAI:
    """The client, which tries once; who asks through it decides about more. Without a key it sends the word `none`."""
    import openai

    return openai.AsyncOpenAI(base_url=address(base_url), api_key=key or "none", timeout=timeout, max_retries=0)
