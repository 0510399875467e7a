"""APIs: one file each, found by being there.

A module declares what its servers can do, and makes the client that calls them:

    SCORES_TEXT      whether its completions endpoint scores given text (`echo` with log probabilities), unless the provider says
    ECHO_MAX_TOKENS  tokens to ask for when text is scored, unless the provider says: 0, or 1 where 0 means "no limit"
    TOP_LOGPROBS     the most alternatives a token that it gives log probabilities of
    token_limit(base_url)             name of the parameter that limits new tokens
    address(base_url)                 the address as the client takes it
    client(base_url, key, timeout)    an asynchronous client that tries each request once
    sdk()                             the module of the client, for its exceptions
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
