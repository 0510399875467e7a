"""A result as HTML for a notebook: the decision, the policies, their differences, notes, remedies and a legend.

Names and sentences are escaped; a refused policy has no number.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from arena_cje.errors import printable
from arena_cje.estimation.decision import words
from arena_cje.results.notebook import decimal
from arena_cje.results.sentences import judge_sentences, reason_sentences, remedy_sentences
from arena_cje.results.text import MEANING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arena_cje.results.record import ResultRecord

RESULT_TITLES = ("Policy", "Estimate", "SE", "Interval", "ESS", "Raw ESS", "Max weight", "Labels", "Verdict")
LEFT = ' style="text-align:left"'


def page(result: ResultRecord) -> str:
    """The blocks of a result, those that it lacks left out."""
    decision, metadata = result.decision, result.document["metadata"]
    headline = f"<p><b>{html.escape(decision['headline'])}</b></p>" if decision else ""
    level = f"{100 * (1 - metadata['alpha']):g} % intervals"
    caption = f"{result.name}: {metadata['n_samples']} logged responses, {metadata['n_oracle']} oracle labels, {level}"
    policies = _table(caption, RESULT_TITLES, (_policy_row(result, policy) for policy in result.all_policies))
    blocks = [
        headline,
        policies,
        _differences(result),
        _list("Not yet known", _open_sentences(result)),
        _list("Notes", reason_sentences(result)),
        _list("What would help", remedy_sentences(result)),
        _list("What the judge is worth", judge_sentences(result)),
        f"<details><summary>What the columns mean</summary><p>{html.escape(MEANING)}</p></details>",
    ]
    return printable("".join(blocks))


def _table(caption: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column has the names of the rows."""
    head = "".join(f'<th scope="col"{LEFT}>{html.escape(title)}</th>' for title in titles)
    body = "".join(
        f'<tr><th scope="row"{LEFT}>{html.escape(name)}</th>{"".join(map(_cell, cells))}</tr>' for name, *cells in rows
    )
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cell(text: str) -> str:
    return f"<td{LEFT}>{html.escape(text)}</td>"


def _policy_row(result: ResultRecord, policy: str) -> list[str]:
    diagnostics = result.document["metadata"]["diagnostics"].get(policy, {})
    role = " (logged)" if policy == result.base_policy else ""
    if policy in result.refused:
        numbers = ["refused", "", ""]
    else:
        summary = result.summary(policy)
        interval = f"[{decimal(summary['ci_lower'])}, {decimal(summary['ci_upper'])}]"
        numbers = [decimal(summary["estimate"]), decimal(summary["se"]), interval]
    formats = {"ess": ".3f", "ess_raw": ".3f", "max_weight": ".1f", "effective_labels": ".0f"}
    numbers += [decimal(diagnostics.get(name), form) for name, form in formats.items()]
    return [policy + role, *numbers, result.verdicts[policy].level]


def _differences(result: ResultRecord) -> str:
    """The table of the differences that decide; empty where none is published."""
    decision = result.decision
    entries = {
        policy: entry for policy, entry in decision.get("policies", {}).items() if entry["difference"] is not None
    }
    if not entries:
        return ""
    count = decision["n_differences"]
    corrected = f", corrected for {count} differences" if count > 1 else ""
    caption = (
        f"minus {decision['against']} ({100 * (1 - decision['alpha']):g} % intervals{corrected}; "
        f"margin {decision['margin']:g})"
    )
    rows = []
    for policy, entry in entries.items():
        low, high = (decimal(end, "+.3f") for end in entry["corrected_interval"])
        remark = words(entry["status"], decision["margin"])
        remark += ", caution: rests on the judge alone" if entry["judge_only"] else ""
        rows.append([policy, decimal(entry["difference"], "+.3f"), decimal(entry["se"]), f"[{low}, {high}]", remark])
    return _table(caption, ("Policy", "Difference", "SE", "Interval", "Decision"), rows)


def _open_sentences(result: ResultRecord) -> list[str]:
    """What the undecided differences take."""
    entries = result.decision.get("policies", {}).values()
    return [entry["sentence"] for entry in entries if entry["status"] == "not_yet_known"]


def _list(title: str, sentences: Sequence[str]) -> str:
    """A list under its title; empty without sentences."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<p>{title}</p><ul>{items}</ul>" if items else ""
