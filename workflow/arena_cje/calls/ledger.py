"""What calls have cost: one line a call in a file that all jobs of an experiment share, and a budget over all of it.

A line is appended under a lock when the answer is there, before the answer is used, so that what was paid is known
whatever is killed. Money whose price is unknown is null there, and is not in the sum.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.calls.limits import locked
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.request import Usage


log = logging.getLogger(__name__)

LEDGER = Path("results/journal/spending.jsonl")

# US dollars of a call: (api, model, prompt tokens, completion tokens); None where the price is unknown.
CallPrice = Callable[[str, str, int, int], float | None]


class Ledger:
    """The file of spendings, and what is in it so far. `budget_usd` None is no limit."""

    def __init__(self, path: Path, usd: CallPrice, budget_usd: float | None = None):
        self.path = path
        self.usd = usd
        self.budget_usd = budget_usd
        self._spent = 0.0
        self._read = 0  # bytes of the file that are in the sum
        path.parent.mkdir(parents=True, exist_ok=True)

    def record(
        self, endpoint: Endpoint, model: str, *, stage: str, policy: str | None, usage: Usage, estimated: bool
    ) -> float | None:
        """Write down one call, and return what it cost."""
        usd = self.usd(endpoint.api, model, usage.prompt_tokens, usage.completion_tokens)
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
        with locked(self.path, os.O_RDWR | os.O_APPEND) as file:
            size = os.fstat(file).st_size
            whole = size == 0 or os.pread(file, 1, size - 1) == b"\n"
            os.write(file, (b"" if whole else b"\n") + orjson.dumps(line) + b"\n")
        return usd

    def spent(self) -> float:
        """US dollars up to now, of all jobs and runs; reads what is new in the file."""
        if not self.path.exists() or self.path.stat().st_size <= self._read:
            return self._spent
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]  # another job may be writing its line just now
        self._read += len(new)
        for line in new.splitlines():
            self._spent += _usd_of(line, self.path)
        return self._spent

    def check(self) -> None:
        """Raise a `UserError` when the budget is spent."""
        if self.budget_usd is not None and self.spent() >= self.budget_usd:
            raise UserError(
                f"the budget is spent: {self.spent():.4f} of `budget_usd` {self.budget_usd:g} ({self.path}); raise it and "
                "start the same command again (what is finished is kept)"
            )

    def check_price(self, endpoint: Endpoint, model: str) -> None:
        """Raise a `UserError` when there is a budget that a model's unknown price cannot be held against."""
        if self.budget_usd is not None and self.usd(endpoint.api, model, 1, 1) is None:
            raise UserError(unknown_price_message(endpoint.provider, model, self.budget_usd))


def _usd_of(line: bytes, path: Path) -> float:
    """What a line says was paid; 0 for a price that was unknown, and for a line that a kill damaged, which is told."""
    try:
        entry: Any = orjson.loads(line) if line else {"usd": None}
        return float(entry["usd"] or 0.0)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        log.warning("%s: a damaged line is not in the sum of what was spent", path)
        return 0.0


def unknown_price_message(provider: str, model: str, budget_usd: float) -> str:
    """That a budget cannot hold, and what to do."""
    return (
        f"provider {provider!r}: the price of model {model!r} is unknown, so `budget_usd` {budget_usd:g} cannot hold; give it "
        f"under `prices` (`{model}: {{input: ..., output: ...}}`, in US dollars for a million tokens), or leave `budget_usd` out"
    )
