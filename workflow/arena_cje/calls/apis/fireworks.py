"""Fireworks: open models behind an API that also scores given text (completions with `echo` and `logprobs`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    import fireworks

# Written here, so that a variable of the environment cannot send requests to another server.
ADDRESS = "https://api.fireworks.ai/inference"
SCORES_TEXT = True
ECHO_MAX_TOKENS = 0
TOP_LOGPROBS = 5


def token_limit(base_url: str | None) -> str:
    """Name of the parameter that limits new tokens."""
    return "max_tokens"


def address(base_url: str | None) -> str:
    """The address as the client takes it: it adds /v1 itself."""
    return ADDRESS if base_url is None else base_url.rstrip("/").removesuffix("/v1")


def client(base_url: str | None, key: str | None, timeout: float) -> fireworks.AsyncFireworks:
    """A client that tries each request once; retries are the runner's. Without a key it sends the word `none`."""
    import fireworks

    return fireworks.AsyncFireworks(base_url=address(base_url), api_key=key or "none", timeout=timeout, max_retries=0)


def sdk() -> ModuleType:
    """The module of the client, for its exceptions."""
    import fireworks

    return fireworks
