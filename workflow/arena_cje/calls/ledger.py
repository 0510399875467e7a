"""The ledger: one line per API call with its tokens and price, in a file that all jobs share, and a budget for the sum.

A line is appended under a lock as soon as a reply has arrived and before it is used, so that a killed job leaves no paid call
without a line; it is on disk before the reply is in the journal. A call of a model without a known price has `usd` null and
adds nothing to the sum.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.calls.limits import locked_file
from arena_cje.errors import UserError, file_errors
from arena_cje.journal import sync_folder

if TYPE_CHECKING:
    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.request import Usage

log = logging.getLogger(__name__)

LEDGER = Path("results/journal/spending.jsonl")

# Price of one call in US dollars from (api, model, prompt tokens, completion tokens); None where it is unknown.
CallPrice = Callable[[str, str, int, int], float | None]


class Ledger:
    """The file of paid calls and their sum. budget_usd: limit of the sum in US dollars; None is no limit."""

    def __init__(self, path: Path, call_price: CallPrice, budget_usd: float | None = None):
        self.path = path
        self.call_price = call_price
        self.budget_usd = budget_usd
        self._total_usd = 0.0
        self._n_bytes_read = 0  # bytes at the beginning of the file that are in the sum
        path.parent.mkdir(parents=True, exist_ok=True)

    def record(
        self, endpoint: Endpoint, model: str, *, stage: str, policy: str | None, usage: Usage, estimated: bool
    ) -> float | None:
        """Append one call and return its price in US dollars; None where the price is unknown.

        estimated: whether `usage` is an estimate because the server reported no usable numbers.
        """
        usd = self.call_price(endpoint.api, model, usage.prompt_tokens, usage.completion_tokens)
        line = {
            "time": round(time.time(), 3),
            "stage": stage,
            "policy": policy,
            "provider": endpoint.provider,
            "model": model,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "usd": usd,
            "estimated": estimated,
        }
        with file_errors(self.path), locked_file(self.path, os.O_RDWR | os.O_APPEND) as file:
            size = os.fstat(file).st_size
            ends_with_newline = size == 0 or os.pread(file, 1, size - 1) == b"\n"
            os.write(file, (b"" if ends_with_newline else b"\n") + orjson.dumps(line) + b"\n")
        return usd

    def sync(self) -> None:
        """Sync the appended lines to disk. No lock is held, so that no other process waits for the disk."""
        with file_errors(self.path):
            if self.path.exists():
                with self.path.open("rb+") as file:
                    os.fsync(file.fileno())
                sync_folder(self.path.parent)

    def total_usd(self) -> float:
        """US dollars paid by all jobs and runs so far. Only the part of the file that is new since the last call is read."""
        if not self.path.exists() or self.path.stat().st_size <= self._n_bytes_read:
            return self._total_usd
        with self.path.open("rb") as file:
            file.seek(self._n_bytes_read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]  # the last line may be incomplete: another job may be writing it
        self._n_bytes_read += len(new)
        for line in new.splitlines():
            self._total_usd += _usd_of_line(line, self.path)
        return self._total_usd

    def check_budget(self) -> None:
        """Raise a `UserError` where the sum has reached the budget."""
        if self.budget_usd is not None and self.total_usd() >= self.budget_usd:
            raise UserError(
                f"the budget is used up: {self.total_usd():.4f} of `budget_usd` {self.budget_usd:g} ({self.path}); raise it and "
                "run the same command again (finished items are kept)"
            )

    def check_price(self, endpoint: Endpoint, model: str) -> None:
        """Raise a `UserError` where there is a budget and the price of the model is unknown."""
        if self.budget_usd is not None and self.call_price(endpoint.api, model, 1, 1) is None:
            raise UserError(unknown_price_message(endpoint.provider, model, self.budget_usd))


def _usd_of_line(line: bytes, path: Path) -> float:
    """Price in a line of the ledger; 0 where it is unknown, and, with a warning, where the line is damaged."""
    try:
        entry: Any = orjson.loads(line) if line else {"usd": None}
        return float(entry["usd"] or 0.0)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        log.warning("%s: a damaged line is not counted in the cost", path)
        return 0.0


def unknown_price_message(provider: str, model: str, limit: float, key: str = "budget_usd") -> str:
    """The sentence for a limit in US dollars that cannot be enforced because the price of a model is unknown."""
    return (
        f"provider {provider!r}: the price of model {model!r} is unknown, so `{key}` {limit:g} cannot be enforced; add "
        f"it under `prices` (`{model}: {{input: ..., output: ...}}`, US dollars for a million tokens) or leave `{key}` out"
    )
