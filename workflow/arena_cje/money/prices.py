"""What calls cost: prices of the configuration first, then an offline table of published prices.

    usd = (prompt tokens * input price + completion tokens * output price) / 10^6

A price is that of a model at an address. A model that is in neither place has no price (None), which is never 0: another
model's price, found because their names begin alike, would be as wrong. The table is the one that `genai-prices` carries;
nothing is fetched. It knows list prices: no discounts, nor what a provider charges less for prompts that it has cached.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from arena_cje.calls.ledger import unknown_price_message
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.config.records import Config, Price

# What may stand after a model's name without making it another model: the day of a version, or that it is the latest.
VERSION_MARK = re.compile(r"(?:[-@]?(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|latest))?")


@dataclass(frozen=True)
class Prices:
    """Prices in US dollars; `overrides` are those of the configuration, by the exact name of a model."""

    overrides: Mapping[str, Price] = field(default_factory=dict)

    def usd(
        self, api: str, model: str, prompt_tokens: int, completion_tokens: int, *, base_url: str | None = None
    ) -> float | None:
        """What one call costs, in US dollars; None where no price is known.

        api, base_url: whose client asks, and at which address where it is not the client's own: a server of your own has
        no price, whatever name its model has.
        """
        if model in self.overrides:
            price = self.overrides[model]
            return (prompt_tokens * price.input + completion_tokens * price.output) / 1e6
        found = _listed(api, base_url, model)
        return None if found is None else _listed_usd(*found, prompt_tokens, completion_tokens)


def check_budget(config: Config) -> None:
    """Refuse a budget that the unknown price of a model cannot be held against."""
    if config.budget_usd is None:
        return
    prices = Prices(config.prices)
    for who, block in config.model_blocks.items():
        if block.hosted:
            at = config.endpoint(block)
            if prices.usd(at.api, block.model, 1, 1, base_url=at.base_url) is None:
                raise UserError(
                    f"config: `{who}`: {unknown_price_message(at.provider, block.model, config.budget_usd)}"
                )


@cache  # each reply of a run asks
def _listed(api: str, base_url: str | None, model: str) -> tuple[Any, Any] | None:
    """Provider and model of the price table; None where it does not know this very model at this address."""
    from genai_prices.data import providers

    # An address of the table begins like the provider's; the slash keeps api.openai.com.example.org out.
    at_home = (
        (lambda one: one.id == api)
        if base_url is None
        else (lambda one: re.match(rf"(?:{one.api_pattern})(?:/|$)", f"{base_url}/"))
    )
    provider = next(filter(at_home, providers), None)
    found = provider and provider.find_model(model, all_providers=providers)
    name = model.lower()
    return (provider, found) if found and (_is_version(name, found.id) or _is_meant(found.match, name)) else None


def _is_version(name: str, model: str) -> bool:
    """Is it this name, or that of a dated version?"""
    return name.startswith(model.lower()) and VERSION_MARK.fullmatch(name[len(model) :]) is not None


def _is_meant(match: Any, name: str) -> bool:
    """Does a rule of the table mean this very name, and not all names that begin, end or go on like it?"""
    if (parts := getattr(match, "or_", None)) is not None:
        return any(_is_meant(part, name) for part in parts)
    if (begins := getattr(match, "starts_with", None)) is not None:
        return _is_version(name, begins)
    return (hasattr(match, "equals") or hasattr(match, "regex")) and match.is_match(name)


def _listed_usd(provider: Any, model: Any, prompt_tokens: int, completion_tokens: int) -> float | None:
    from datetime import UTC, datetime

    from genai_prices import Usage

    now = datetime.now(UTC)
    price = model.get_prices(now)
    if price.input_mtok is None or price.output_mtok is None:
        return None  # a model that is not paid for by tokens, or of which the table knows half
    usage = Usage(input_tokens=prompt_tokens, output_tokens=completion_tokens)
    return float(model.calc_price(usage, provider, genai_request_timestamp=now).total_price)
