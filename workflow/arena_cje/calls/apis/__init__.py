"""APIs, one module each; a new module in this folder is a new API.

A module states what its servers can do, and makes the client that calls them:

    ECHOES_LOGPROBS  default of `completions`: whether its completions endpoint returns the log probabilities of a text that it is
                     sent (`echo` with `logprobs`)
    ECHO_MAX_TOKENS  default of `echo_max_tokens`: 0, or 1 for servers that take 0 for "no limit"
    TOP_LOGPROBS     largest number of alternatives to a token whose log probabilities it returns
    token_limit(base_url)             name of the parameter that limits new tokens
    address(base_url)                 base URL in the form that the client takes
    client(base_url, key, timeout)    an asynchronous client without retries; timeout in seconds
    sdk()                             the client's package, for its exceptions
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

NAMES = tuple(sorted((m.name for m in iter_modules(__path__)), key=lambda name: (name != "openai", name)))


def get(name: str) -> ModuleType:
    """The module of an API."""
    return import_module(f"{__name__}.{name}")
