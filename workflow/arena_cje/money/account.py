"""What was spent on calls to APIs, beside the estimate: the ledger read, and told in a table, in JSON and in one line."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.calls.ledger import LEDGER
from arena_cje.money import estimate as money_estimate
from arena_cje.money.estimate import Key, Line, Range, Spent
from arena_cje.money.prices import Prices

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arena_cje.config.records import Config

log = logging.getLogger(__name__)

NAMES = ("stage", "policy", "provider", "model")
UNKNOWN = "?"
LONGEST = 28  # characters of a name in the table; a context ends by its system prompt, which tells it apart

Row = dict[str, Any]


@dataclass(frozen=True)
class Account:
    """The estimate of a configuration, what was spent, and what it will have been in the end."""

    estimate: Sequence[Line]
    expected: Sequence[Line]
    spent: Mapping[Key, Spent]
    budget_usd: float | None

    @property
    def whole(self) -> Spent:
        """All that was spent."""
        return all_spent(self.spent.values())

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "estimate": [_of_line(line) for line in self.estimate],
            "actual": [dict(zip(NAMES, key, strict=True)) | _of_spent(one) for key, one in self.spent.items()],
            "expected": [_of_line(line) for line in self.expected],
            "total": {
                "estimate": _of_total(self.estimate),
                "actual": _of_spent(self.whole),
                "expected": _of_total(self.expected),
            },
            "unknown_prices": money_estimate.unpriced(self.estimate),
            "budget_usd": self.budget_usd,
        }

    def table(self) -> str:
        """The estimate by stage and policy, beside it what was spent, and below what to know about both."""
        if not self.estimate and not self.spent:
            return "No API is asked: there is nothing to pay for."
        lines, ends = ({line.key: line for line in found} for found in (self.estimate, self.expected))
        made = bool(self.spent)
        rows = [_row(key, lines.get(key), ends.get(key), self.spent.get(key), made) for key in {**lines, **self.spent}]
        whole = replace(money_estimate.total(self.estimate), stage="total")
        rows.append(_row(whole.key, whole, money_estimate.total(self.expected), self.whole, made))
        columns = ["stage", "policy", "model", "calls", "tokens read", "written", "low - middle - high"]
        columns += ["calls made", "tokens read", "written", "spent", "in the end"] if made else []
        return "\n".join([_aligned([columns, *rows]), "", *_notes(self)])

    def last_line(self) -> str:
        """What was spent beside the estimate, in one sentence."""
        said = (
            f"{count(self.whole.calls)} calls to APIs until now: {_known(self.whole.unpriced)}{dollars(self.whole.usd)}"
        )
        if self.estimate:
            least = _known(len(money_estimate.unpriced(self.estimate)))
            said += f"; the estimate for all was {least}{interval(money_estimate.total(self.estimate).usd)}"
        return f"{said}. `snakemake cost` tells it by stage and policy."


def account(config: Config, source: str | None, resources: str, *, results: Path = LEDGER.parents[1]) -> Account:
    """The account of a configuration in the working directory; `source` is the file of its prompts."""
    texts = money_estimate.gather(config, source and Path(source), Path(resources))
    prices = Prices(config.prices)
    spent = by_key(read(results / LEDGER.relative_to("results")))
    seen = money_estimate.plan(config, replace(texts, responses=responses(results, config)))
    return Account(
        estimate=money_estimate.estimate(money_estimate.plan(config, texts), prices),
        expected=money_estimate.expected(seen, prices, spent, finished(results, config)),
        spent=spent,
        budget_usd=config.budget_usd,
    )


def read(ledger: Path = LEDGER) -> list[Row]:
    """Calls that were paid for, one a row; none where nothing was asked yet."""
    if not ledger.exists():
        return []
    rows, damaged = [], 0
    for line in ledger.read_bytes().splitlines():
        try:
            rows.append(orjson.loads(line))
        except orjson.JSONDecodeError:  # left by a machine that went down, or being written just now
            damaged += 1
    if damaged:
        log.warning("%s: %d line(s) cannot be read; what was spent is more than what the others say", ledger, damaged)
    return rows


def by_key(rows: Iterable[Row]) -> dict[Key, Spent]:
    """What was spent by stage, policy, provider and model."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault((row["stage"], row["policy"] or "", row["provider"], row["model"]), []).append(row)
    return {key: _spent(calls) for key, calls in found.items()}


def _spent(rows: Sequence[Row]) -> Spent:
    return Spent(
        prompt_tokens=tuple(row["prompt_tokens"] for row in rows),
        completion_tokens=tuple(row["completion_tokens"] for row in rows),
        usd=sum(row["usd"] for row in rows if row["usd"] is not None),
        unpriced=sum(row["usd"] is None for row in rows),
        estimated=sum(bool(row["estimated"]) for row in rows),
    )


def all_spent(spent: Iterable[Spent]) -> Spent:
    """The sum."""
    parts = list(spent)
    return Spent(
        prompt_tokens=tuple(n for part in parts for n in part.prompt_tokens),
        completion_tokens=tuple(n for part in parts for n in part.completion_tokens),
        usd=sum(part.usd for part in parts),
        unpriced=sum(part.unpriced for part in parts),
        estimated=sum(part.estimated for part in parts),
    )


def finished(results: Path, config: Config) -> dict[tuple[str, str], int]:
    """Rows of each stage and policy that are done: those of the shards that lie in the results folder."""
    rows = {}
    for policy in config.policies:
        rows["generate", policy] = _lines(results / "responses" / policy)
        rows["judge", policy] = _lines(results / "judge" / policy)
        for judge in config.judges:
            rows[f"judges/{judge}", policy] = _lines(results / "judges" / judge / policy)
        # Coverages are nested: the folder with most rows holds all labels that there are.
        steps = (results / "oracle" / policy).glob("coverage_*")
        rows["oracle", policy] = max((_lines(step) for step in steps if step.is_dir()), default=0)
    for context in config.contexts:
        rows["score", context] = _scored(results / "logprobs" / context)
    return rows


def _lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))


def _scored(folder: Path) -> int:
    """Responses with a score, whatever the number of samplings."""
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        return 0
    import polars as pl

    return sum(pl.read_parquet(path, columns=["prompt_id"])["prompt_id"].n_unique() for path in paths)


def responses(results: Path, config: Config) -> dict[str, list[str]]:
    """The responses that are written, by policy."""
    found = {}
    for policy in config.policies:
        shards = sorted((results / "responses" / policy).glob("*.jsonl"))
        rows = [orjson.loads(line) for path in shards for line in path.read_bytes().splitlines()]
        found[policy] = [row["response"] for row in rows]
    return found


def _of_line(line: Line) -> dict[str, Any]:
    return dict(zip(NAMES, line.key, strict=True)) | _figures(line)


def _figures(line: Line) -> dict[str, list[float] | None]:
    figures = {
        "calls": line.calls,
        "prompt_tokens": line.prompt_tokens,
        "completion_tokens": line.completion_tokens,
        "usd": line.usd,
    }
    return {name: value and [value.low, value.middle, value.high] for name, value in figures.items()}


def _of_total(lines: Sequence[Line]) -> dict[str, Any]:
    return {**_figures(money_estimate.total(lines)), "usd_at_least": bool(money_estimate.unpriced(lines))}


def _of_spent(spent: Spent) -> dict[str, Any]:
    return {
        "calls": spent.calls,
        "prompt_tokens": sum(spent.prompt_tokens),
        "completion_tokens": sum(spent.completion_tokens),
        "usd": _money(spent),
        "calls_without_price": spent.unpriced,
        "calls_with_estimated_tokens": spent.estimated,
    }


def _money(spent: Spent) -> float | None:
    """What is known of it; None where nothing is."""
    return None if spent.calls and spent.unpriced == spent.calls else spent.usd


def _row(key: Key, line: Line | None, end: Line | None, spent: Spent | None, made: bool) -> list[str]:
    stage, policy, _, model = key
    cells = [stage, policy if len(policy) <= LONGEST else f"…{policy[1 - LONGEST :]}", model.rsplit("/", 1)[-1]]
    if line is None:
        cells += ["", "", "", "not in this configuration"]
    else:
        cells += [count(value.middle) for value in (line.calls, line.prompt_tokens, line.completion_tokens)]
        cells.append(interval(line.usd))
    if made:
        spent = spent or Spent()
        cells += [count(spent.calls), count(sum(spent.prompt_tokens)), count(sum(spent.completion_tokens))]
        cells += [dollars(_money(spent)), "" if end is None else interval(end.usd)]
    return cells


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, names to the left and figures to the right, a rule under the heads and above the total."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(n) if k < 3 else cell.rjust(n) for k, (cell, n) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _notes(account: Account) -> list[str]:
    whole = account.whole
    found = ["Estimate: from the configuration alone, at list prices in US dollars without discounts."]
    for model in money_estimate.unpriced(account.estimate):
        found.append(
            f"No price is known for {model}, so the total is at least what it says; give one under `prices` (US dollars for "
            "a million tokens)."
        )
    if whole.unpriced:
        found.append(f"{whole.unpriced} of {whole.calls} calls had no known price and are not in the money spent.")
    if whole.estimated:
        found.append(
            f"The tokens of {whole.estimated} calls are estimated, as the server gave no usable count of them."
        )
    if account.budget_usd is not None:
        high = money_estimate.total(account.expected).usd.high
        fits = (
            "holds the whole run"
            if high <= account.budget_usd
            else f"is less than the {dollars(high)} that it may take"
        )
        found.append(f"Budget: {dollars(account.budget_usd)}, of which {dollars(whole.usd)} are spent; it {fits}.")
    return found


def count(value: float) -> str:
    """A count in at most four digits."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= max(0.9995 * size, 9999.5):
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def dollars(value: float | None) -> str:
    """Money in US dollars, small amounts with two digits; a question mark where no price is known."""
    if value is None:
        return UNKNOWN
    if value == 0 or value >= 0.0995:
        return f"${value:,.2f}"
    return f"${value:.2g}" if value >= 1e-4 else f"${value:.1e}"


def interval(value: Range | None) -> str:
    """Bounds with the guess between them; one number where all are the same."""
    if value is None:
        return UNKNOWN
    told = [dollars(bound) for bound in (value.low, value.middle, value.high)]
    return told[0] if len(set(told)) == 1 else " - ".join(told)


def _known(n_unknown: int) -> str:
    return "at least " if n_unknown else ""
