"""An endpoint: the server that a policy, judge or oracle calls, its API key, and the limits of concurrency, rate and time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena_cje.calls import apis
from arena_cje.errors import UserError
from arena_cje.provenance import digest

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Endpoint:
    """An API at an address, called with one API key. Only `api` and `base_url` can influence its replies."""

    provider: str  # name under `providers` in the configuration
    api: str  # name of a module in `apis`, whose client sends the requests
    base_url: str | None  # None: the default address of the client
    api_key_env: str | None  # environment variable that holds the API key; None sends no key
    max_concurrency: int
    requests_per_minute: float | None  # None: no limit
    timeout: float  # seconds
    max_attempts: int
    completions: bool  # whether it returns the log probabilities of a text that it is sent
    echo_max_tokens: int  # `max_tokens` of the requests for such log probabilities
    json_reply: str  # "schema", "object" or "text"
    token_limit: str | None = None  # name of the parameter that limits new tokens of a chat; None: that of the API
    seed: str = "send"  # or "omit"

    @property
    def identity(self) -> dict[str, str | None]:
        """The part of a request's identity that names the server."""
        return {"api": self.api, "base_url": self.base_url}

    @property
    def pool(self) -> str:
        """Folder name shared by all endpoints with this address and API key, whatever the variable that holds the key."""
        address = apis.get(self.api).address(self.base_url).lower().removesuffix("/v1")
        return digest({"address": address, "key": self.api_key()})[:16]

    def api_key(self) -> str | None:
        """The API key from the environment, which is never written to a file; None where no key is sent.

        Raises a `UserError` where the environment variable is empty.
        """
        if self.api_key_env is None:
            return None
        if not (key := os.environ.get(self.api_key_env, "").strip()):
            raise UserError(
                f"provider {self.provider!r}: the environment variable {self.api_key_env} contains no API key; export "
                f"{self.api_key_env}=... and run the same command again (finished items are kept)"
            )
        return key


def check_keys(endpoints: Iterable[Endpoint]) -> None:
    """Raise a `UserError` that names every API key of these endpoints that the environment lacks."""
    missing: dict[str, str] = {}
    for endpoint in endpoints:
        if endpoint.api_key_env is not None and not os.environ.get(endpoint.api_key_env, "").strip():
            missing.setdefault(endpoint.api_key_env, endpoint.provider)
    if missing:
        names = " and ".join(f"{name} (provider {provider!r})" for name, provider in missing.items())
        raise UserError(
            f"environment variables without an API key: {names}; export them and run the same command again (no request was sent)"
        )
