"""A result in a few lines, for the prompt of Python: the decision, and a row for each policy.

A refused policy has no number. The rest (weights, reasons, remedies, what the judge is worth) is in `text`.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from arena_cje.errors import printable
from arena_cje.results.cells import difference_cells, policy_cells
from arena_cje.results.line_breaks import wrapped
from arena_cje.results.sentences import difference_remark, left_out_sentences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from arena_cje.results.cells import DifferenceCells
    from arena_cje.results.record import ResultRecord

WIDTH = 100
NAME_WIDTH = 30
DETAILS = "result.details() has weights, reasons and what would help."


def overview(result: ResultRecord) -> str:
    """The decision, the numbers of rows and labels, and a table of the policies, at most some 120 characters wide."""
    metadata, decision = result.document["metadata"], result.decision
    level = f"{100 * (1 - metadata['alpha']):g} % interval"
    rows = [["policy", "estimate", level, "verdict"]]
    rows += [[row.policy, row.estimate, row.interval, row.verdict] for row in policy_cells(result)]
    if decision:
        simultaneous = " (simultaneous)" if decision["n_differences"] > 1 else ""
        rows[0].append(f"difference to {decision['against']}, {level}{simultaneous}")
        differences = difference_cells(decision)
        for row, policy in zip(rows[1:], result.all_policies, strict=True):
            row.append(_difference(decision, policy, differences.get(policy)))
    headline = textwrap.wrap(decision["headline"], WIDTH) if decision else []
    left_out = [line for sentence in left_out_sentences(result) for line in textwrap.wrap(sentence, WIDTH)]
    data = f"{result.name}: {metadata['n_samples']} logged responses, {metadata['n_oracle']} oracle labels"
    return printable("\n".join([*headline, "", data, *left_out, *_table(rows), "", DETAILS]).lstrip("\n"))


def _difference(decision: Mapping[str, Any], policy: str, cells: DifferenceCells | None) -> str:
    """The difference of a policy to the one that the decision compares with, and what it decides; empty where it is refused."""
    if cells:
        return f"{cells.difference} {cells.interval} {cells.decision}"
    entry = decision["policies"].get(policy)
    return "" if entry is None or entry["status"] == "refused" else difference_remark(decision, entry)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with its columns aligned, a rule below the first row; long names are continued in the next line."""
    names = [wrapped(name, NAME_WIDTH) for name, *_ in rows]
    rows = [[first, *cells] for (first, *_), (_, *cells) in zip(names, rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row, (_, *more) in zip(rows, names, strict=True):
        cells = (
            cell.rjust(width) if k == 1 else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines += ["  ".join(cells).rstrip(), *(f"  {part}" for part in more)]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
