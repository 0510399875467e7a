"""Who is asked, and how gently: a provider of the configuration with what one policy, judge or oracle says otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena_cje.errors import UserError
from arena_cje.provenance import digest

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Endpoint:
    """An API at an address under a key. Only `api` and `base_url` can matter to what it answers."""

    provider: str  # its name in the configuration
    api: str  # whose client asks: "openai" or "fireworks"
    base_url: str | None  # None is the client's own
    api_key_env: str | None  # name of the variable that holds the key; None sends none
    max_concurrency: int
    requests_per_minute: float | None
    timeout: float  # seconds
    max_attempts: int
    completions: bool  # scores given text
    echo_max_tokens: int
    json_reply: str  # "schema", "object" or "text"

    @property
    def identity(self) -> dict[str, str | None]:
        """What determines an answer, beside the request."""
        return {"api": self.api, "base_url": self.base_url}

    @property
    def pool(self) -> str:
        """A name, good for a folder, that all who share the address and the key share: limits hold for it."""
        who = {**self.identity, "api_key_env": self.api_key_env}
        return f"{self.api}-{digest(who)[:8]}"

    def key(self) -> str | None:
        """The key itself, from the environment; None where none is sent. It is never written down."""
        if self.api_key_env is None:
            return None
        if not (found := os.environ.get(self.api_key_env, "").strip()):
            raise UserError(
                f"provider {self.provider!r}: no key in the environment variable {self.api_key_env}; "
                f"export {self.api_key_env}=... and start again (what is finished is kept)"
            )
        return found


def check_keys(endpoints: Iterable[Endpoint]) -> None:
    """Raise a `UserError` that names every key which is missing among those who are to be asked."""
    missing: dict[str, str] = {}
    for one in endpoints:
        if one.api_key_env is not None and not os.environ.get(one.api_key_env, "").strip():
            missing.setdefault(one.api_key_env, one.provider)
    if missing:
        told = " and ".join(f"{name} (provider {provider!r})" for name, provider in missing.items())
        raise UserError(
            f"no key in the environment: {told}; export what is missing and start again (nothing was asked)"
        )
