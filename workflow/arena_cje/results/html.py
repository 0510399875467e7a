"""A result as HTML for a notebook: the decision, the policies, their differences, notes, remedies and a legend.

Names and sentences are escaped; a refused policy has no number.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from arena_cje.errors import printable
from arena_cje.results.cells import difference_cells, policy_cells
from arena_cje.results.sentences import (
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
DIFFERENCE_TITLES = ("Policy", "Difference", "SE", "Interval", "Decision")
LEFT = ' style="text-align:left"'


def page(result: ResultRecord) -> str:
    """The blocks of a result, those that it lacks left out."""
    decision, metadata = result.decision, result.document["metadata"]
    headline = f"<p><b>{html.escape(decision['headline'])}</b></p>" if decision else ""
    level = f"{100 * (1 - metadata['alpha']):g} % intervals"
    caption = f"{result.name}: {metadata['n_samples']} logged responses, {metadata['n_oracle']} oracle labels, {level}"
    policies = _table(caption, RESULT_TITLES, policy_cells(result))
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


def _differences(result: ResultRecord) -> str:
    """The table of the differences that decide; empty where none is published."""
    rows = difference_cells(result.decision).values()
    return _table(differences_title(result.decision), DIFFERENCE_TITLES, rows) if rows else ""


def _list(title: str, sentences: Sequence[str]) -> str:
    """A list under its title; empty without sentences."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<p>{title}</p><ul>{items}</ul>" if items else ""
