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
from arena_cje.estimation.decision import words
from arena_cje.estimation.records import LEVELS
from arena_cje.results.notebook import decimal, weight_table
from arena_cje.results.sentences import judge_sentences, left_out_sentences

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
    "Estimate: mean oracle label that the policy would earn on prompts like these. Interval: includes prompt sampling and label "
    "uncertainty."
)
MEANING_OF_ESS = (
    "ESS: effective sample size ÷ n after capping; raw ESS: before capping. Raw ESS decides the overlap verdict. Max weight: "
    "after capping, where the mean weight is 1."
)
MEANING_OF_LABELS = "Labels: effective number of labels in this policy's score range."
OWN_LABELS = (
    "Labels of a policy's own responses: set `oracle.target_labels`; with your own data, put `oracle_label` into its fresh draws "
    "or add `probes`."
)


def console_table(result: ResultRecord) -> str:
    """The table of a result, after the decision and the numbers of rows and labels, before the reasons of the verdicts."""
    rows = [_policy_row(result, policy) for policy in result.all_policies]
    width = min(NAME_WIDTH, max(len("policy"), *(len(name) for name, *_ in rows)))
    level = f"{100 * (1 - result.document['metadata']['alpha']):g} % interval"
    titles = ["policy", *(level if title == "interval" else title for title, _ in COLUMNS)]
    lines = [
        *_decision_lines(result),
        _data_line(result),
        *(line for sentence in left_out_sentences(result) for line in _wrapped(sentence)),
        "",
        _line(titles, width),
        "-" * (width + sum(2 + size for _, size in COLUMNS)),
    ]
    for row in rows:
        first, *more = textwrap.wrap(row[0], width, break_on_hyphens=False) or [""]
        lines += [_line([first, *row[1:]], width), *(f"  {part}" for part in more)]
    lines += _difference_lines(result, width) + _weight_lines(result) + _judge_lines(result)
    lines += [
        "",
        *textwrap.wrap(_meaning(result), WIDTH),
        *_open_lines(result),
        *_reason_lines(result),
        *_remedy_lines(result),
    ]
    if sentences := judge_sentences(result):
        lines += ["", *(line for sentence in sentences for line in _wrapped(sentence))]
    return printable("\n".join(lines))


def _meaning(result: ResultRecord) -> str:
    """The legend of the table, with the weights only where the estimator uses them."""
    parts = (MEANING, MEANING_OF_ESS if _uses_weights(result) else "", MEANING_OF_LABELS)
    return " ".join(filter(None, parts))


def _uses_weights(result: ResultRecord) -> bool:
    diagnostics = result.document["metadata"]["diagnostics"].values()
    return any(entry.get("ess") is not None for entry in diagnostics)


def _decision_lines(result: ResultRecord) -> list[str]:
    """The headline of the decision; no lines in files of earlier versions, which have none."""
    return _wrapped(result.decision["headline"]) if result.decision else []


def _difference_lines(result: ResultRecord, width: int) -> list[str]:
    """The difference of each policy to the one that the decision compares with; no lines where none is published."""
    entries = result.decision.get("policies", {})
    published = {policy: entry for policy, entry in entries.items() if entry["difference"] is not None}
    if not published:
        return []
    decision, rows = result.decision, []
    for policy, entry in published.items():
        low, high = entry["corrected_interval"]
        interval = f"[{decimal(low, '+.3f')}, {decimal(high, '+.3f')}]"
        name = textwrap.shorten(policy, width, placeholder="...")
        remark = words(entry["status"], decision["margin"])
        remark += " (caution: judge scores alone)" if entry["judge_only"] else ""
        numbers = f"{decimal(entry['difference'], '+.3f'):>8}  {decimal(entry['se']):>6}  {interval:>16}"
        rows.append(f"{name:<{width}}  {numbers}  {remark}")
    level, count = f"{100 * (1 - decision['alpha']):g} %", decision["n_differences"]
    intervals = f"simultaneous {level} intervals of {count} differences" if count > 1 else f"{level} interval"
    return ["", f"Difference to {decision['against']} ({intervals}; margin {decision['margin']:g})", *rows]


def _open_lines(result: ResultRecord) -> list[str]:
    """What would decide the undecided differences, a sentence each."""
    entries = result.decision.get("policies", {}).values()
    sentences = [entry["sentence"] for entry in entries if entry["status"] == "not_yet_known"]
    return ["", *(line for sentence in sentences for line in _wrapped(sentence))] if sentences else []


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _weight_lines(result: ResultRecord) -> list[str]:
    """The table of the raw importance weights; no lines where the estimator uses none."""
    if not _uses_weights(result):
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
        lines += _wrapped(f"{'note' if level == 'ok' else level}: {', '.join(policies)}: {sentence}")
    return ["", *lines] if lines else []


def _remedy_lines(result: ResultRecord) -> list[str]:
    """What would lift the verdicts that are not ok, a sentence each with all the policies that it concerns."""
    policies_by_remedy: dict[str, list[str]] = {}
    for policy in result.all_policies:
        for sentence in result.remedies(policy):
            policies_by_remedy.setdefault(sentence, []).append(policy)
    lines = [
        line
        for sentence, policies in policies_by_remedy.items()
        for line in _wrapped(f"remedy: {', '.join(policies)}: {sentence}")
    ]
    if not lines:
        return []
    kinds = {one["kind"] for of_policy in result.document.get("remedies", {}).values() for one in of_policy}
    return ["", *lines, *(_wrapped(OWN_LABELS) if "own_labels" in kinds else [])]
