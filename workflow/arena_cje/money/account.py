"""The account of calls to APIs: what was spent according to the ledger, beside the estimate; as table, JSON and one sentence."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.calls.ledger import LEDGER
from arena_cje.errors import printable
from arena_cje.files import read_jsonl
from arena_cje.money import estimate, people
from arena_cje.money.estimate import CostLine, Key, Range, Spending
from arena_cje.money.prices import Prices

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arena_cje.config.records import Config
    from arena_cje.money.people import BatchCost

log = logging.getLogger(__name__)

KEY_NAMES = ("stage", "policy", "provider", "model")
UNKNOWN = "?"
MAX_NAME = 28  # characters of a name in the table; a longer one loses its beginning: a context's name ends with its system prompt

Row = dict[str, Any]


@dataclass(frozen=True)
class Account:
    """The estimate of a configuration, what was spent so far, and the forecast for the whole run."""

    estimate: Sequence[CostLine]
    expected: Sequence[CostLine]
    spending: Mapping[Key, Spending]
    budget_usd: float | None
    votes: Sequence[BatchCost] = ()  # labelling batches, which are not API costs

    @property
    def total_spending(self) -> Spending:
        """All calls so far."""
        return sum_spending(self.spending.values())

    def document(self) -> dict[str, Any]:
        """The account as JSON values, as in results/cost.json."""
        return {
            "estimate": [_line_document(line) for line in self.estimate],
            "actual": [
                dict(zip(KEY_NAMES, key, strict=True)) | _spending_document(spending)
                for key, spending in self.spending.items()
            ],
            "expected": [_line_document(line) for line in self.expected],
            "total": {
                "estimate": _total_document(self.estimate),
                "actual": _spending_document(self.total_spending),
                "expected": _total_document(self.expected),
            },
            "unknown_prices": estimate.models_without_price(self.estimate),
            "budget_usd": self.budget_usd,
            "people": [asdict(batch) for batch in self.votes],
        }

    def table(self) -> str:
        """The estimate by stage and policy, what was spent beside it, and notes about both below."""
        if not self.estimate and not self.spending:
            return "\n".join(["No API is used, so there are no costs of calls.", *map(_vote_note, self.votes)])
        lines, forecasts = ({line.key: line for line in part} for part in (self.estimate, self.expected))
        has_spending = bool(self.spending)
        rows = [
            _table_row(key, lines.get(key), forecasts.get(key), self.spending.get(key), has_spending)
            for key in {**lines, **self.spending}
        ]
        total = estimate.total_line(self.estimate)
        forecast = estimate.total_line(self.expected)
        rows.append(_table_row(total.key, total, forecast, self.total_spending, has_spending))
        columns = ["stage", "policy", "model", "calls", "prompt tokens", "completion", "low - middle - high"]
        columns += ["calls made", "prompt tokens", "completion", "spent", "at the end"] if has_spending else []
        return printable("\n".join([_aligned([columns, *rows]), "", *_notes(self)]))

    def last_line(self) -> str:
        """What was spent and the estimate, in one sentence."""
        spending = self.total_spending
        cost = f"{_at_least(spending.n_without_price)}{dollars(spending.usd)}"
        sentence = f"{count(spending.calls)} calls to APIs so far cost {cost}"
        if self.estimate:
            bound = _at_least(len(estimate.models_without_price(self.estimate)))
            sentence += f"; the estimate for the whole run is {bound}{interval(estimate.total_line(self.estimate).usd)}"
        return f"{sentence}. `snakemake cost` shows costs by stage and policy."


def account(config: Config, pool: str | None, resources: str, *, results: Path = LEDGER.parents[1]) -> Account:
    """The account of a configuration in the working directory.

    pool: file of the prompts in their order. resources: the workflow's folder of files. results: folder of the run's results.
    """
    texts = estimate.load_texts(config, pool and Path(pool), Path(resources))
    prices = Prices(config.prices)
    spending = spending_by_key(read_ledger(results / LEDGER.relative_to("results")))
    current_plans = estimate.plan_calls(config, replace(texts, responses=read_responses(results, config)))
    return Account(
        estimate=estimate.estimate_costs(estimate.plan_calls(config, texts), prices),
        expected=estimate.forecast_costs(current_plans, prices, spending, count_finished_rows(results, config)),
        spending=spending,
        budget_usd=config.budget_usd,
        votes=people.batch_costs(config, len(texts.prompts)),
    )


LEDGER_KEYS = frozenset(
    ("stage", "policy", "provider", "model", "prompt_tokens", "completion_tokens", "usd", "estimated")
)  # that `spending_by_key` reads


def read_ledger(ledger: Path = LEDGER) -> list[Row]:
    """Rows of the ledger, one for each call; none where no call was made."""
    if not ledger.exists():
        return []
    rows, n_damaged = [], 0
    for line in filter(None, ledger.read_bytes().splitlines()):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:  # the line of a machine that crashed, or one that is being written
            row = None
        if isinstance(row, dict) and row.keys() >= LEDGER_KEYS:
            rows.append(row)
        else:
            n_damaged += 1
    if n_damaged:
        log.warning("%s: %d line(s) cannot be read and are not counted in the cost", ledger, n_damaged)
    return rows


def spending_by_key(rows: Iterable[Row]) -> dict[Key, Spending]:
    """Calls of the ledger by stage, policy, provider and model."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["stage"], row["policy"] or "", row["provider"], row["model"]), []).append(row)
    return {
        key: Spending(
            prompt_tokens=tuple(row["prompt_tokens"] for row in calls),
            completion_tokens=tuple(row["completion_tokens"] for row in calls),
            usd=sum(row["usd"] for row in calls if row["usd"] is not None),
            n_without_price=sum(row["usd"] is None for row in calls),
            n_estimated=sum(bool(row["estimated"]) for row in calls),
        )
        for key, calls in groups.items()
    }


def sum_spending(spending: Iterable[Spending]) -> Spending:
    """All calls of several groups together."""
    parts = list(spending)
    return Spending(
        prompt_tokens=tuple(n for part in parts for n in part.prompt_tokens),
        completion_tokens=tuple(n for part in parts for n in part.completion_tokens),
        usd=sum(part.usd for part in parts),
        n_without_price=sum(part.n_without_price for part in parts),
        n_estimated=sum(part.n_estimated for part in parts),
    )


def count_finished_rows(results: Path, config: Config) -> dict[tuple[str, str], int]:
    """Number of finished rows by stage and policy: those in the files of shards in the results folder."""
    rows = {}
    for policy in config.policies:
        rows["generate", policy] = _count_lines(results / "responses" / policy)
        rows["judge", policy] = _count_lines(results / "judge" / policy)
        for judge in config.judges:
            rows[f"judges/{judge}", policy] = _count_lines(results / "judges" / judge / policy)
        # Coverages are nested: the folder with most rows has all labels.
        folders = (results / "oracle" / policy).glob("coverage_*")
        rows["oracle", policy] = max((_count_lines(folder) for folder in folders if folder.is_dir()), default=0)
    for context in config.contexts:
        rows["score", context] = _count_responses_with_logprobs(results / "logprobs" / context)
    return rows


def _count_lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))


def _count_responses_with_logprobs(folder: Path) -> int:
    """Responses in the tables of a context, which have a row for each response and sampling."""
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        return 0
    import polars as pl

    return sum(pl.read_parquet(path, columns=["prompt_id"])["prompt_id"].n_unique() for path in paths)


def read_responses(results: Path, config: Config) -> dict[str, list[str]]:
    """Texts of the responses that are written so far, by policy."""
    texts = {}
    for policy in config.policies:
        shards = sorted((results / "responses" / policy).glob("*.jsonl"))
        texts[policy] = [row["response"] for path in shards for row in read_jsonl(path)]
    return texts


def _line_document(line: CostLine) -> dict[str, Any]:
    return dict(zip(KEY_NAMES, line.key, strict=True)) | _range_document(line)


def _range_document(line: CostLine) -> dict[str, list[float] | None]:
    ranges = {
        "calls": line.calls,
        "prompt_tokens": line.prompt_tokens,
        "completion_tokens": line.completion_tokens,
        "usd": line.usd,
    }
    return {name: value and [value.low, value.middle, value.high] for name, value in ranges.items()}


def _total_document(lines: Sequence[CostLine]) -> dict[str, Any]:
    return {**_range_document(estimate.total_line(lines)), "usd_at_least": bool(estimate.models_without_price(lines))}


def _spending_document(spending: Spending) -> dict[str, Any]:
    return {
        "calls": spending.calls,
        "prompt_tokens": sum(spending.prompt_tokens),
        "completion_tokens": sum(spending.completion_tokens),
        "usd": _known_usd(spending),
        "calls_without_price": spending.n_without_price,
        "calls_with_estimated_tokens": spending.n_estimated,
    }


def _known_usd(spending: Spending) -> float | None:
    """US dollars of the calls with a known price; None where there are calls and none has one."""
    return None if spending.calls and spending.n_without_price == spending.calls else spending.usd


def _table_row(
    key: Key, line: CostLine | None, forecast: CostLine | None, spending: Spending | None, has_spending: bool
) -> list[str]:
    """Cells of one stage and policy. has_spending: whether the table has the columns of what was spent."""
    stage, policy, _, model = key
    cells = [stage, policy if len(policy) <= MAX_NAME else f"…{policy[1 - MAX_NAME :]}", model.rsplit("/", 1)[-1]]
    if line is None:
        cells += ["", "", "", "not in this configuration"]
    else:
        cells += [count(value.middle) for value in (line.calls, line.prompt_tokens, line.completion_tokens)]
        cells.append(interval(line.usd))
    if has_spending:
        spending = spending or Spending()
        cells += [count(spending.calls), count(sum(spending.prompt_tokens)), count(sum(spending.completion_tokens))]
        cells += [dollars(_known_usd(spending)), "" if forecast is None else interval(forecast.usd)]
    return cells


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text: names left-aligned, numbers right-aligned, lines below the header and above the total."""
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
    """Sentences below the table."""
    spending = account.total_spending
    notes = ["The estimate uses the configuration alone, and list prices in US dollars without discounts."]
    for model in estimate.models_without_price(account.estimate):
        notes.append(
            f"The price of {model} is unknown, so the total is a lower bound; add it under `prices` (US dollars for a million "
            "tokens)."
        )
    if spending.n_without_price:
        notes.append(
            f"{spending.n_without_price} of {spending.calls} calls have no known price and are not counted in the cost."
        )
    if spending.n_estimated:
        notes.append(
            f"The tokens of {spending.n_estimated} calls are estimated, because the server reported no usable count."
        )
    if account.budget_usd is not None:
        high = estimate.total_line(account.expected).usd.high
        comparison = (
            "covers the whole run"
            if high <= account.budget_usd
            else f"is less than {dollars(high)}, the upper bound for the whole run"
        )
        notes.append(
            f"The budget of {dollars(account.budget_usd)}, of which {dollars(spending.usd)} is spent, {comparison}."
        )
    return notes + list(map(_vote_note, account.votes))


def _vote_note(batch: BatchCost) -> str:
    """What a labelling batch costs, in a sentence."""
    price = "at an unknown price (`labeling.usd_per_vote`)" if batch.usd is None else f"for {batch.usd:,.2f} US dollars"
    return f"Labelling batch {batch.batch} takes at most {batch.n_votes:,} votes of people {price}."


def count(value: float) -> str:
    """A count with at most four digits: 9999, 10k, 1.23M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= max(0.9995 * size, 9999.5):
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def dollars(value: float | None) -> str:
    """An amount in US dollars, with two digits where it is small; a question mark where it is unknown."""
    if value is None:
        return UNKNOWN
    if value == 0 or value >= 0.0995:
        return f"${value:,.2f}"
    return f"${value:.2g}" if value >= 1e-4 else f"${value:.1e}"


def interval(value: Range | None) -> str:
    """Lower bound, best guess and upper bound of an amount; one number where they are equal."""
    if value is None:
        return UNKNOWN
    amounts = [dollars(bound) for bound in (value.low, value.middle, value.high)]
    return amounts[0] if len(set(amounts)) == 1 else " - ".join(amounts)


def _at_least(n_unknown: int) -> str:
    return "at least " if n_unknown else ""
