"""A result as a table for the terminal.

It has one row for each policy, the base policy first, and at most 116 columns of characters; a second table has the
importance weights, where the estimator uses them. A refused policy has no number. The reasons for refusals and cautions
follow, a sentence each.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from arena_cje.errors import printable
from arena_cje.estimation.records import LEVELS
from arena_cje.results.notebook import decimal, weight_table

if TYPE_CHECKING:
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
MEANING = (
    "An estimate is the mean oracle label the policy would earn on prompts like these; its interval allows for the "
    "sampling of prompts and for how few labels there are. ESS: effective share of rows under the weights that were "
    "used, and under the raw ones, by which overlap is judged. Labels: how many of them speak for the policy."
)


def console_table(result: ResultRecord) -> str:
    """The table of a result, after a line with the numbers of rows and labels, before the reasons of the verdicts."""
    rows = [_policy_row(result, policy) for policy in result.all_policies]
    width = min(NAME_WIDTH, max(len("policy"), *(len(name) for name, *_ in rows)))
    level = f"{100 * (1 - result.document['metadata']['alpha']):g} % interval"
    titles = ["policy", *(level if title == "interval" else title for title, _ in COLUMNS)]
    lines = [_headline(result), "", _line(titles, width), "-" * (width + sum(2 + size for _, size in COLUMNS))]
    for row in rows:
        first, *more = textwrap.wrap(row[0], width, break_on_hyphens=False) or [""]
        lines += [_line([first, *row[1:]], width), *(f"  {part}" for part in more)]
    lines += _difference_lines(result, width) + _weight_lines(result) + _judge_lines(result)
    return printable("\n".join([*lines, "", *textwrap.wrap(MEANING, WIDTH), *_reason_lines(result)]))


def _difference_lines(result: ResultRecord, width: int) -> list[str]:
    """The difference of each target to the base policy; no lines where none is published."""
    rows = []
    for policy, entry in result.document["differences_to_base"].items():
        if entry["difference"] is None:
            continue
        low, high = entry["confidence_interval"]
        interval = f"[{decimal(low, '+.3f')}, {decimal(high, '+.3f')}]"
        name = textwrap.shorten(policy, width, placeholder="...")
        rows.append(
            f"{name:<{width}}  {decimal(entry['difference'], '+.3f'):>8}  {decimal(entry['se']):>6}  {interval:>16}"
        )
    return ["", f"minus {result.base_policy}", *rows] if rows else []


def _weight_lines(result: ResultRecord) -> list[str]:
    """The table of the raw importance weights; no lines where the estimator uses none."""
    diagnostics = result.document["metadata"]["diagnostics"].values()
    if all(entry.get("ess") is None for entry in diagnostics):
        return []
    return ["", "Importance weights, as they are before any cap", *weight_table(result).splitlines()]


def _judge_lines(result: ResultRecord) -> list[str]:
    """The rank correlation of judge and oracle; no line where it is unknown."""
    calibration = result.document["calibration"] or {}
    spearman, n_labels = calibration.get("spearman"), calibration.get("n_labels")
    if spearman is None:
        return []
    return ["", f"Spearman correlation of judge and oracle: {decimal(spearman, '.2f')} on {n_labels} labels"]


def _headline(result: ResultRecord) -> str:
    metadata = result.document["metadata"]
    labels, rows = metadata["n_oracle"], metadata["n_samples"]
    requested = metadata["n_labels_wanted"]
    note = f", {requested} were requested" if labels < requested else ""
    return f"{result.name}: {rows} logged responses, {labels} oracle labels ({labels / rows:.1%}){note}"


def _policy_row(result: ResultRecord, policy: str) -> list[str]:
    """The cells of a policy: its name, then one for each of COLUMNS."""
    role = " (logged)" if policy == result.base_policy else ""
    summary, diagnostics = result.summary(policy), result.document["metadata"]["diagnostics"].get(policy, {})
    if policy in result.refused:
        numbers = ["refused", "", ""]
    else:
        interval = f"[{decimal(summary['ci_lower'])}, {decimal(summary['ci_upper'])}]"
        numbers = [decimal(summary["estimate"]), decimal(summary["se"]), interval]
    weights = diagnostics if diagnostics.get("ess") is not None else {}  # none without weights
    numbers += [
        decimal(weights.get("ess")),
        decimal(weights.get("ess_raw")),
        decimal(weights.get("max_weight"), ".1f"),
    ]
    numbers.append(decimal(diagnostics.get("effective_labels"), ".0f"))
    return [policy + role, *numbers, result.verdicts[policy].level]


def _line(cells: list[str], width: int) -> str:
    padded = (f"  {cell:>{size}}" for cell, (_, size) in zip(cells[1:], COLUMNS, strict=True))
    return f"{cells[0]:<{width}}{''.join(padded)}".rstrip()


def _reason_lines(result: ResultRecord) -> list[str]:
    """The sentences of the verdicts, worst level first, each once with all the policies that have it.

    A refused policy has only the reasons of its refusal here; the others are in the results file.
    """
    policies_by_reason: dict[tuple[str, str], list[str]] = {}
    for level in reversed(LEVELS):
        for policy, verdict in result.verdicts.items():
            for reason in verdict.reasons:
                if reason.level == level and (verdict.ok or level == "refuse"):
                    policies_by_reason.setdefault((level, reason.sentence), []).append(policy)
    lines = []
    for (level, sentence), policies in policies_by_reason.items():
        line = f"{'note' if level == 'ok' else level}: {', '.join(policies)}: {sentence}"
        lines += textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return ["", *lines] if lines else []
