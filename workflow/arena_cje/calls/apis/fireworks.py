"""Fireworks: open models behind an API whose completions endpoint returns log probabilities of a text that it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.calls import transport

if TYPE_CHECKING:
    from types import ModuleType

    import fireworks

# Stated here, so that no environment variable can send requests to another server.
ADDRESS = "https://api.fireworks.ai/inference"
ECHOES_LOGPROBS = True
ECHO_MAX_TOKENS = 0
TOP_LOGPROBS = 5


def token_limit(base_url: str | None) -> str:
    """Name of the parameter that limits new tokens."""
    return "max_tokens"


def address(base_url: str | None) -> str:
    """Base URL as the client takes it: without /v1, which the client adds."""
    return ADDRESS if base_url is None else base_url.rstrip("/").removesuffix("/v1")


def client(base_url: str | None, key: str | None, timeout: float) -> fireworks.AsyncFireworks:
    """An asynchronous client without retries, which are the runner's task. Without a key it sends the word `none`."""
    import fireworks

    return transport.client(
        fireworks.AsyncFireworks, fireworks.DefaultAsyncHttpxClient, address(base_url), key, timeout
    )


def sdk() -> ModuleType:
    """The client's package, for its exceptions."""
    import fireworks

    return fireworks
