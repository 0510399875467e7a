"""A result as a table for the terminal.

The decision stands first. The table has one row for each policy, the base policy first, and at most 116 columns of
characters; a second one has the differences that decide, a third the importance weights, where the estimator uses them. A
refused policy has no number. Then follow what would decide the undecided differences, the reasons for refusals and cautions,
what would lift them, and how many labels the judge saves, a sentence each.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from arena_cje.errors import printable
from arena_cje.numbers import decimal
from arena_cje.results.cells import difference_cells, policy_cells
from arena_cje.results.line_breaks import wrapped
from arena_cje.results.notebook import weight_table
from arena_cje.results.sentences import (
    differences_title,
    judge_sentences,
    left_out_sentences,
    legend,
    open_sentences,
    own_labels_sentences,
    reason_sentences,
    remedy_sentences,
    uses_weights,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.results.record import ResultRecord

WIDTH = 110
NAME_WIDTH = 30  # longer policy names are continued in the next line
COLUMNS = (
    ("estimate", 8),
    ("SE", 6),
    ("interval", 16),
    ("ESS", 5),
    ("raw ESS", 7),
    ("max weight", 10),
    ("labels", 6),
    ("verdict", 8),
)


def console_table(result: ResultRecord) -> str:
    """The table of a result, after the decision and the numbers of rows and labels, before the reasons of the verdicts."""
    rows = policy_cells(result)
    width = min(NAME_WIDTH, max(len("policy"), *(len(row.policy) for row in rows)))
    level = f"{100 * (1 - result.document['metadata']['alpha']):g} % interval"
    titles = [level if title == "interval" else title for title, _ in COLUMNS]
    lines = [
        *_decision_lines(result),
        _data_line(result),
        *_block(left_out_sentences(result))[1:],
        "",
        *_row("policy", width, _cells(titles)),
        "-" * (width + sum(2 + size for _, size in COLUMNS)),
    ]
    for row in rows:
        lines += _row(row.policy, width, _cells(row[1:]))
    lines += _difference_lines(result, width) + _weight_lines(result) + _judge_lines(result)
    lines += [
        "",
        *textwrap.wrap(legend(result), WIDTH),
        *_block(open_sentences(result)),
        *_block(reason_sentences(result)),
        *_block([f"remedy: {sentence}" for sentence in remedy_sentences(result)] + own_labels_sentences(result)),
        *_block(judge_sentences(result)),
    ]
    return printable("\n".join(lines))


def _decision_lines(result: ResultRecord) -> list[str]:
    """The headline of the decision; no lines in files of earlier versions, which have none."""
    return _wrapped(result.decision["headline"]) if result.decision else []


def _difference_lines(result: ResultRecord, width: int) -> list[str]:
    """The difference of each policy to the one that the decision compares with; no lines where none is published."""
    rows = difference_cells(result.decision).values()
    if not rows:
        return []
    lines = ["", differences_title(result.decision)]
    for row in rows:
        lines += _row(row.policy, width, f"  {row.difference:>8}  {row.se:>6}  {row.interval:>16}  {row.decision}")
    return lines


def _block(sentences: list[str]) -> list[str]:
    """An empty line, then the sentences; no lines without sentences."""
    return ["", *(line for sentence in sentences for line in _wrapped(sentence))] if sentences else []


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _weight_lines(result: ResultRecord) -> list[str]:
    """The table of the raw importance weights; no lines where the estimator uses none."""
    if not uses_weights(result):
        return []
    return ["", "Importance weights before capping", *weight_table(result).splitlines()]


def _judge_lines(result: ResultRecord) -> list[str]:
    """The rank correlation of judge and oracle; no line where it is unknown."""
    calibration = result.document["calibration"] or {}
    spearman, n_labels = calibration.get("spearman"), calibration.get("n_labels")
    if spearman is None:
        return []
    return ["", f"Spearman correlation of judge and oracle: {decimal(spearman, '.2f')} on {n_labels} labels"]


def _data_line(result: ResultRecord) -> str:
    metadata = result.document["metadata"]
    labels, rows = metadata["n_oracle"], metadata["n_samples"]
    requested = metadata["n_labels_wanted"]
    note = f"; {requested} labels were requested" if labels < requested else ""
    return f"{result.name}: {rows} logged responses, {labels} oracle labels ({100 * labels / rows:.1f} %){note}"


def _cells(cells: Sequence[str]) -> str:
    """The cells of `COLUMNS`, each in its width."""
    return "".join(f"  {cell:>{size}}" for cell, (_, size) in zip(cells, COLUMNS, strict=True))


def _row(policy: str, width: int, cells: str) -> list[str]:
    """A line of a table, and the lines in which a long name is continued."""
    first, *more = wrapped(policy, width)
    return [f"{first:<{width}}{cells}".rstrip(), *(f"  {part}" for part in more)]
