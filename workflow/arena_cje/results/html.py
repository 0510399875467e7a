"""A result as HTML for a notebook: the decision, the policies, their differences, notes, remedies and a legend.

Names and sentences are escaped; a refused policy has no number.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from arena_cje.errors import printable
from arena_cje.results.numbers import decimal
from arena_cje.results.sentences import (
    difference_remark,
    differences_title,
    judge_sentences,
    left_out_sentences,
    legend,
    open_sentences,
    own_labels_sentences,
    reason_sentences,
    remedy_sentences,
)

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
        _list("Left out", left_out_sentences(result)),
        _differences(result),
        _list("Not yet known", open_sentences(result)),
        _list("Notes", reason_sentences(result)),
        _list("What would help", remedy_sentences(result) + own_labels_sentences(result)),
        _list("Labels that the judge saves", judge_sentences(result)),
        f"<details><summary>What the columns mean</summary><p>{html.escape(legend(result))}</p></details>",
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
    rows = []
    for policy, entry in entries.items():
        low, high = (decimal(end, "+.3f") for end in entry["corrected_interval"])
        numbers = [decimal(entry["difference"], "+.3f"), decimal(entry["se"]), f"[{low}, {high}]"]
        rows.append([policy, *numbers, difference_remark(decision, entry)])
    return _table(differences_title(decision), ("Policy", "Difference", "SE", "Interval", "Decision"), rows)


def _list(title: str, sentences: Sequence[str]) -> str:
    """A list under its title; empty without sentences."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<p>{title}</p><ul>{items}</ul>" if items else ""
