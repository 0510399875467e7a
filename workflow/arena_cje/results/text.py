"""A result as a table for the terminal.

One row a policy, the base policy first, at most 116 columns wide, and a second table of the importance weights where
they are used. A refused policy shows no number; why it is refused stands below in a sentence, as does whatever calls
for caution.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from arena_cje.estimation.records import LEVELS

if TYPE_CHECKING:
    from arena_cje.results.record import ResultRecord

WIDTH = 110
NAME_WIDTH = 30  # longer policy names go on in the next line
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
    """The table, the number of labels, what it means, and the reasons behind the verdicts."""
    rows = [_cells(result, policy) for policy in result.all_policies]
    width = min(NAME_WIDTH, max(len("policy"), *(len(name) for name, *_ in rows)))
    level = f"{100 * (1 - result.document['metadata']['alpha']):g} % interval"
    titles = ["policy", *(level if title == "interval" else title for title, _ in COLUMNS)]
    lines = [_headline(result), "", _line(titles, width), "-" * (width + sum(2 + size for _, size in COLUMNS))]
    for row in rows:
        first, *more = textwrap.wrap(row[0], width, break_on_hyphens=False) or [""]
        lines += [_line([first, *row[1:]], width), *(f"  {part}" for part in more)]
    lines += _differences(result, width) + _weights(result)
    return "\n".join([*lines, "", *textwrap.wrap(MEANING, WIDTH), *_reasons(result)])


def _differences(result: ResultRecord, width: int) -> list[str]:
    """Each target minus the base policy; nothing where no difference may be published."""
    rows = []
    for policy, found in result.document["differences_to_base"].items():
        if found["difference"] is None:
            continue
        low, high = found["confidence_interval"]
        interval = f"[{_number(low, '+.3f')}, {_number(high, '+.3f')}]"
        name = textwrap.shorten(policy, width, placeholder="...")
        rows.append(
            f"{name:<{width}}  {_number(found['difference'], '+.3f'):>8}  {_number(found['se']):>6}  {interval:>16}"
        )
    return ["", f"minus {result.base_policy}", *rows] if rows else []


def _weights(result: ResultRecord) -> list[str]:
    """How good the importance weights are, where the estimator uses them."""
    diagnostics = result.document["metadata"]["diagnostics"].values()
    if all(found.get("ess") is None for found in diagnostics):
        return []
    from arena_cje.results.notebook import weight_table

    return ["", "Importance weights, as they are before any cap", *weight_table(result).splitlines()]


def _headline(result: ResultRecord) -> str:
    metadata = result.document["metadata"]
    labels, rows = metadata["n_oracle"], metadata["n_samples"]
    wanted = metadata["n_labels_wanted"]
    fewer = f", {wanted} were asked for" if labels < wanted else ""
    return f"{result.name}: {rows} logged responses, {labels} oracle labels ({labels / rows:.1%}){fewer}"


def _cells(result: ResultRecord, policy: str) -> list[str]:
    role = " (logged)" if policy == result.base_policy else ""
    summary, weights = result.summary(policy), result.document["metadata"]["diagnostics"].get(policy, {})
    level = result.verdicts[policy].level
    if policy in result.refused:
        numbers = ["refused", "", ""]
    else:
        interval = f"[{_number(summary['ci_lower'])}, {_number(summary['ci_upper'])}]"
        numbers = [_number(summary["estimate"]), _number(summary["se"]), interval]
    weighted = weights if weights.get("ess") is not None else {}
    figures = [_number(weighted.get(name), ".3f") for name in ("ess", "ess_raw")]
    figures += [_number(weighted.get("max_weight"), ".1f"), _number(weights.get("effective_labels"), ".0f")]
    return [policy + role, *numbers, *figures, level]


def _number(value: Any, form: str = ".3f") -> str:
    if value is None or math.isnan(value):
        return "-"
    shown = format(value, form)
    return shown.replace("-", "+" if "+" in form else "") if float(shown) == 0 else shown  # no -0.000


def _line(cells: list[str], width: int) -> str:
    sized = (f"  {cell:>{size}}" for cell, (_, size) in zip(cells[1:], COLUMNS, strict=True))
    return f"{cells[0]:<{width}}{''.join(sized)}".rstrip()


def _reasons(result: ResultRecord) -> list[str]:
    """Sentences behind the verdicts, worst first, each said once for all policies it holds for.

    Of a refused policy only what refuses it: the rest is in the results file.
    """
    holds_for: dict[tuple[str, str], list[str]] = {}
    for level in reversed(LEVELS):
        for policy, verdict in result.verdicts.items():
            for reason in verdict.reasons:
                if reason.level == level and (verdict.ok or level == "refuse"):
                    holds_for.setdefault((level, reason.sentence), []).append(policy)
    lines = []
    for (level, sentence), policies in holds_for.items():
        said = f"{'note' if level == 'ok' else level}: {', '.join(policies)}: {sentence}"
        lines += textwrap.wrap(said, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return ["", *lines] if lines else []
