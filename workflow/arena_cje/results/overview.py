"""A result in a few lines, for the prompt of Python: the decision, and a row for each policy.

A refused policy has no number. The rest (weights, reasons, remedies, what the judge is worth) is in `text`.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from arena_cje.errors import printable
from arena_cje.results.numbers import decimal
from arena_cje.results.sentences import difference_remark, left_out_sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.results.record import ResultRecord

WIDTH = 100
NAME_WIDTH = 30
DETAILS = "result.details() has weights, reasons and what would help."


def overview(result: ResultRecord) -> str:
    """The decision, the numbers of rows and labels, and a table of the policies, at most some 120 characters wide."""
    metadata, decision = result.document["metadata"], result.decision
    level = f"{100 * (1 - metadata['alpha']):g} % interval"
    rows = [
        ["policy", "estimate", level, "verdict"],
        *(_policy_cells(result, policy) for policy in result.all_policies),
    ]
    if decision:
        simultaneous = " (simultaneous)" if decision["n_differences"] > 1 else ""
        rows[0].append(f"difference to {decision['against']}, {level}{simultaneous}")
        for row, policy in zip(rows[1:], result.all_policies, strict=True):
            row.append(_difference(result, policy))
    headline = textwrap.wrap(decision["headline"], WIDTH) if decision else []
    left_out = [line for sentence in left_out_sentences(result) for line in textwrap.wrap(sentence, WIDTH)]
    data = f"{result.name}: {metadata['n_samples']} logged responses, {metadata['n_oracle']} oracle labels"
    return printable("\n".join([*headline, "", data, *left_out, *_table(rows), "", DETAILS]).lstrip("\n"))


def _policy_cells(result: ResultRecord, policy: str) -> list[str]:
    role = " (logged)" if policy == result.base_policy else ""
    summary, level = result.summary(policy), result.verdicts[policy].level
    name = textwrap.shorten(policy, NAME_WIDTH, placeholder="...") + role
    if policy in result.refused:
        return [name, "refused", "", level]
    return [
        name,
        decimal(summary["estimate"]),
        f"[{decimal(summary['ci_lower'])}, {decimal(summary['ci_upper'])}]",
        level,
    ]


def _difference(result: ResultRecord, policy: str) -> str:
    """The difference of a policy to the one that the decision compares with, and what it decides."""
    entry = result.decision["policies"].get(policy)
    if entry is None or entry["status"] == "refused":
        return ""
    status = difference_remark(result.decision, entry)
    if entry["difference"] is None:
        return status
    low, high = (decimal(end, "+.3f") for end in entry["corrected_interval"])
    return f"{decimal(entry['difference'], '+.3f')} [{low}, {high}] {status}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with its columns aligned, a rule below the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if k == 1 else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [line.rstrip() for line in (lines[0], "-" * len(lines[0]), *lines[1:])]
