"""The page about a data set before its analysis: what was read and dropped, and how scores, labels and lengths lie.

One HTML file without scripts, for a browser without a network. The template escapes all text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arena_cje.report.dashboard_data import Cell, Table, number, text
from arena_cje.report.pages import environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEMPLATE = "data_report.html.j2"
BARS = "·▁▂▃▄▅▆▇█"  # from none to all


def render(account: Mapping[str, Any], summary: Mapping[str, Any], coverage: str) -> str:
    """The page as HTML; account: that of `results.account`, summary: of the data set."""

    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            title=f"Data at coverage {coverage}",
            notes=_notes(account),
            tables=[
                _counts(account),
                _dropped(summary),
                _logprobs(account),
                _distribution(account, "judge_score", "Judge scores"),
                _labels(account),
                _distribution(account, "words", "Words of a response", form=".0f"),
            ],
        )
    )


def _notes(account: Mapping[str, Any]) -> list[str]:
    """Sentences about what should be looked at first."""
    notes = [f"{name} has the log probabilities of the base policy on every row." for name in account["same_as_base"]]
    notes += [f"{name}: {sentence}." for name, sentences in account["cautions"].items() for sentence in sentences]
    return notes


def _policies(account: Mapping[str, Any]) -> list[tuple[Cell, Mapping[str, Any]]]:
    base = account["base_policy"]
    return [(Cell(f"{name}{' (logged)' * (name == base)}"), own) for name, own in account["policies"].items()]


def _counts(account: Mapping[str, Any]) -> Table:
    columns = ("policy", "responses", "prompts", "without a judge score", "oracle labels", "empty", "without text")
    keys = ("rows", "prompts", "without_score", "labels", "empty", "without_text")
    rows = tuple(
        (cell, *(number(own["oracle_label"]["n"] if key == "labels" else own[key], "d") for key in keys))
        for cell, own in _policies(account)
    )
    return Table(
        "Responses by policy",
        columns,
        rows,
        note="Those of the base policy are logged responses, the others fresh draws.",
    )


def _dropped(summary: Mapping[str, Any]) -> Table:
    """Counts of the stages before the data set, with reasons."""
    rows = [("responses of the base policy that were read", summary.get("n_responses"))]
    rows += [(f"dropped: {reason}", count) for reason, count in (summary.get("dropped") or {}).items()]
    rows += [(f"without a log probability under {name}", n) for name, n in (summary.get("not_scored") or {}).items()]
    rows += [(f"without a score of {name}", n) for name, n in (summary.get("not_judged") or {}).items()]
    for name, scoring in (summary.get("scoring") or {}).items():
        rows += [(f"scored under {name}: {status}", count) for status, count in scoring["status"].items()]
    rows += [(f"ended by {reason}", count) for reason, count in (summary.get("finish_reasons") or {}).items()]
    return Table(
        "From responses to data", ("step", "count"), tuple((text(name), number(count, "d")) for name, count in rows)
    )


def _logprobs(account: Mapping[str, Any]) -> Table:
    columns = {
        "with a weight": "n_ratios",
        "rejected": "n_rejected",
        "log probability of exactly 0": "n_zero",
        "impossible under the target": "n_outside_support",
        "same as the base": "n_equal",
        "extreme ratio": "n_extreme",
        "very extreme ratio": "n_very_extreme",
    }
    rows = tuple(
        (text(name), number(counts["n_rows"], "d"), *(number(counts[key], "d") for key in columns.values()))
        for name, counts in account["logprobs"].items()
    )
    note = (
        "Ratio: the probability of a response under the target over that under the base. Extreme: above a limit or below its "
        "inverse, 100 and 1,000 by default."
    )
    return Table("Log probabilities of the logged responses", ("target policy", "responses", *columns), rows, note)


def _distribution(account: Mapping[str, Any], field: str, caption: str, form: str = ".3f") -> Table:
    quantiles = {
        "mean": "mean",
        "min": "lowest",
        "p5": "5 % quantile",
        "median": "median",
        "p95": "95 % quantile",
        "max": "highest",
    }
    rows = tuple(
        (
            cell,
            number(own[field]["n"], "d"),
            *(number(own[field][key], form) for key in quantiles),
            *((Cell(histogram(own[field]["bins"])),) if "bins" in own[field] else ()),
        )
        for cell, own in _policies(account)
    )
    has_bins = any("bins" in own[field] for own in account["policies"].values())
    return Table(
        caption, ("policy", "responses", *quantiles.values(), *(("histogram, 0 to 1",) if has_bins else ())), rows
    )


def _labels(account: Mapping[str, Any]) -> Table:
    rows = []
    for cell, own in _policies(account):
        labels = own["oracle_label"]
        between = labels["n"] - labels["zero"] - labels["one"]
        counts = (labels["n"], labels["zero"], between, labels["one"])
        rows.append((cell, *(number(n, "d") for n in counts), number(labels["mean"]), Cell(histogram(labels["bins"]))))
    return Table(
        "Oracle labels",
        ("policy", "labels", "label 0", "between 0 and 1", "label 1", "mean", "histogram, 0 to 1"),
        tuple(rows),
    )


def histogram(bins: Sequence[int]) -> str:
    """A histogram as text, one character a bin, the fullest one at full height; a bin with any count is visible."""
    most = max(bins, default=0)
    return "".join(BARS[-(-count * (len(BARS) - 1) // most)] if most else BARS[0] for count in bins)
