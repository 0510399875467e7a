"""Prices of calls: those of the configuration first, then an offline table of published prices.

    usd = (prompt tokens * input price + completion tokens * output price) / 10^6

A price of the configuration applies to the exact model name at any address, a price of the table to a model at the address of
a provider. A model that is in neither place has no price (None). None is never taken as 0, and the price of a model with a
similar name is never used. The table is that of the `genai-prices` package; there are no downloads. It has list prices: no
discounts, and no lower prices for cached prompts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from arena_cje.calls.ledger import unknown_price_message
from arena_cje.config.records.values import HUMAN
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.config.records import Config
    from arena_cje.config.records.models import ModelBlock, Price

# Suffix of a model's name that does not make it another model: the date of a version, or `latest`.
VERSION_SUFFIX = re.compile(r"(?:[-@]?(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|latest))?")


@dataclass(frozen=True)
class Prices:
    """Prices in US dollars. overrides: prices of the configuration, by exact model name, at any address."""

    overrides: Mapping[str, Price] = field(default_factory=dict)

    def usd(
        self, api: str, model: str, prompt_tokens: int, completion_tokens: int, *, base_url: str | None = None
    ) -> float | None:
        """Price of one call in US dollars; None where it is unknown.

        api, base_url: the API and its address; None is the API's default address. A model on a self-hosted server has no
        published price, whatever its name.
        """
        if model in self.overrides:
            price = self.overrides[model]
            return (prompt_tokens * price.input + completion_tokens * price.output) / 1e6
        entry = _table_entry(api, base_url, model)
        return None if entry is None else _table_usd(*entry, prompt_tokens, completion_tokens)


def check_budget(config: Config) -> None:
    """Raise a `UserError` where there is a limit in US dollars and a price that counts towards it is unknown."""
    if config.budget_usd is not None:
        for place, block in config.model_blocks.items():
            _check_price(config, place, block, config.budget_usd, "budget_usd")
    if config.looks.max_usd is None or config.logged_data is not None:
        return
    _check_price(config, "oracle", config.oracle, config.looks.max_usd, "looks.max_usd")
    if config.oracle.provider == HUMAN and config.labeling.usd_per_vote is None:
        raise UserError("config: `looks.max_usd` needs the price of a vote; set `labeling.usd_per_vote`")


def _check_price(config: Config, place: str, block: ModelBlock, limit: float, key: str) -> None:
    """Raise a `UserError` where the price of a block's hosted model is unknown; limit: in US dollars, by a key."""
    if block.hosted:
        endpoint = config.endpoint(block)
        if Prices(config.prices).usd(endpoint.api, block.model, 1, 1, base_url=endpoint.base_url) is None:
            raise UserError(f"config: `{place}`: {unknown_price_message(endpoint.provider, block.model, limit, key)}")


@cache  # it is called for each reply of a run
def _table_entry(api: str, base_url: str | None, model: str) -> tuple[Any, Any] | None:
    """Provider and model in the price table; None where the table lacks this model at this address."""
    from genai_prices.data import providers

    # The table has the beginning of each provider's address; the slash excludes api.openai.com.example.org.
    is_provider = (
        (lambda provider: provider.id == api)
        if base_url is None
        else (lambda provider: re.match(rf"(?:{provider.api_pattern})(?:/|$)", f"{base_url}/"))
    )
    provider = next(filter(is_provider, providers), None)
    entry = provider and provider.find_model(model, all_providers=providers)
    name = model.lower()
    return (provider, entry) if entry and (_is_version(name, entry.id) or _matches_name(entry.match, name)) else None


def _is_version(name: str, model: str) -> bool:
    """Whether a name is that of a model or of a dated version of it."""
    return name.startswith(model.lower()) and VERSION_SUFFIX.fullmatch(name[len(model) :]) is not None


def _matches_name(rule: Any, name: str) -> bool:
    """Whether a rule of the table matches this name as a whole, and not by its beginning, end or middle alone."""
    if (parts := getattr(rule, "or_", None)) is not None:
        return any(_matches_name(part, name) for part in parts)
    if (prefix := getattr(rule, "starts_with", None)) is not None:
        return _is_version(name, prefix)
    return (hasattr(rule, "equals") or hasattr(rule, "regex")) and rule.is_match(name)


def _table_usd(provider: Any, model: Any, prompt_tokens: int, completion_tokens: int) -> float | None:
    from datetime import UTC, datetime

    from genai_prices import Usage

    now = datetime.now(UTC)
    price = model.get_prices(now)
    if price.input_mtok is None or price.output_mtok is None:
        return None  # the model is not priced by tokens, or the table lacks one of the two prices
    usage = Usage(input_tokens=prompt_tokens, output_tokens=completion_tokens)
    return float(model.calc_price(usage, provider, genai_request_timestamp=now).total_price)
