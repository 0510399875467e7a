"""Totals of a job's calls, and the log lines about its retries."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field

from arena_cje.journal import Tally

log = logging.getLogger(__name__)

LOG_INTERVAL = 10.0  # seconds between two lines about retries


@dataclass
class CallTotals:
    """Totals of one job's calls."""

    calls: int = 0  # requests sent, counting every attempt
    retries: Counter[str] = field(default_factory=Counter)  # attempts that were repeated, by kind of failure
    usd: float | None = 0.0  # None as soon as the price of one call is unknown
    tally: Tally = field(default_factory=Tally)  # requests that have a reply, with their tokens and time

    def add_tally(self, tally: Tally) -> None:
        """Add the tally of one batch of requests."""
        for name in ("items", "prompt_tokens", "response_tokens", "seconds", "cpu_seconds"):
            setattr(self.tally, name, getattr(self.tally, name) + getattr(tally, name))

    def add_cost(self, usd: float | None) -> None:
        """Add the price of one call; None where it is unknown."""
        self.usd = None if usd is None or self.usd is None else self.usd + usd

    def write_log(self) -> None:
        """Log calls, cost and retries, where there were calls."""
        if self.calls:
            cost = "at an unknown price" if self.usd is None else f"for {self.usd:.4f} US$"
            log.info("%d calls %s; %s", self.calls, cost, _retry_counts(self.retries))


class RetryLog:
    """Log lines about retries: one for the first retry, then at most one every ten seconds."""

    def __init__(self) -> None:
        self._not_logged: Counter[str] = Counter()
        self._last_line = float("-inf")

    def count(self, kind: str, wait: float) -> None:
        """Count one retry. kind: the failure that caused it; wait: seconds until the next attempt."""
        self._not_logged[kind] += 1
        if time.monotonic() - self._last_line >= LOG_INTERVAL:
            log.warning("%s; waiting %.0f s", _retry_counts(self._not_logged), wait)
            self._not_logged.clear()
            self._last_line = time.monotonic()


def _retry_counts(retries: Counter[str]) -> str:
    """`3 retries: 2 timeout, 1 connection lost`."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in retries.most_common())
    return f"{retries.total()} {'retry' if retries.total() == 1 else 'retries'}{f': {kinds}' if kinds else ''}"
