"""Fireworks: open models behind an API that also scores given text (completions with `echo` and `logprobs`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import fireworks

ADDRESS = (
    "https://api.fireworks.ai/inference"  # said here, so that a variable of the environment cannot change who answers
)
CAN = frozenset({"complete", "score", "logprobs", "token_ids"})


def address(base_url: str | None) -> str:
    """The address as the client takes it: it adds /v1 itself."""
    return ADDRESS if base_url is None else base_url.rstrip("/").removesuffix("/v1")


def client(base_url: str | None, key: str | None, timeout: float) -> fireworks.AsyncFireworks:
    """The client, which tries once; who asks through it decides about more. Without a key it sends the word `none`."""
    import fireworks

    return fireworks.AsyncFireworks(base_url=address(base_url), api_key=key or "none", timeout=timeout, max_retries=0)
