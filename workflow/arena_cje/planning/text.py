"""A plan in sentences, for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arena_cje.numbers import decimal, interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Document = dict[str, Any]


def lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """The plan in lines: what the pilot's sizes reach, then what to do."""
    pilot = plan["pilot"]
    targets = list(pilot["differences"])
    yield from _of_pilot(plan, targets)
    if targets:
        yield from _of_goal(plan)
    yield from _of_budget(plan)
    yield from _of_audits(plan["audits"])


def _of_pilot(plan: Mapping[str, Any], targets: list[str]) -> Iterator[str]:
    pilot, power = plan["pilot"], plan["goal"]["power"]
    if targets:
        counts = ", ".join(f"{policy} {count}" for policy, count in pilot["labels"].items())
        yield f"Pilot: {pilot['prompts']} prompts, estimator {pilot['estimator']}; labelled prompts: {counts}."
        correction = f", corrected for {len(targets)} differences" if len(targets) > 1 else ""
        yield (
            f"With these numbers of prompts and labels, for differences to {pilot['base']}: half-width of the "
            f"{_percent(1 - pilot['alpha'])} interval of one difference, and the smallest difference that is detected with power "
            f"{power:g}{correction}. In brackets: their uncertainty in a pilot of this size."
        )
    width = max(map(len, targets), default=0)
    for row in plan["now"]:
        yield (
            f"  {row['policy']:{width}}  ± {_range(row['half_width'], row['half_width_range'])}"
            f"   detects {_range(row['detectable'], row['detectable_range'])}"
        )
    for reason, policies in _grouped(pilot["omitted"]).items():
        yield f"No plan for {', '.join(policies)}: {reason}."
    if not targets:
        yield "A pilot needs labels on responses of the targets, best on 50 or more prompts whose base response has a label, too."


def _of_goal(plan: Mapping[str, Any]) -> Iterator[str]:
    if not plan["choices"]:
        return
    goal = plan["goal"]
    parts = []
    if goal["difference"] is not None:
        parts.append(f"that detect a difference of {goal['difference']:g} with power {goal['power']:g}")
    if goal["half_width"] is not None:
        parts.append(f"whose intervals are at most ± {goal['half_width']:g}")
    yield f"Studies {' and '.join(parts)} for every target (with a safety margin for a pilot of this size):"
    for row in plan["choices"]:
        if row["m"] is None:
            yield f"  {row['n']:>8} prompts: no number of labels is enough"
        else:
            yield f"  {row['n']:>8} prompts: {_study(row)}"
    if plan["cheapest"] is not None:
        row = plan["cheapest"]
        yield f"Cheapest: {row['n']} prompts, {_study(row)}."
    elif None in plan["prices"].values():
        yield "The cheapest study depends on prices, which are unknown: give --price-judge and --price-label."


def _of_budget(plan: Mapping[str, Any]) -> Iterator[str]:
    if (row := plan["best_for_budget"]) is not None:
        yield (
            f"Most precise study for {_dollars(plan['goal']['budget'])}: {row['n']} prompts, {_study(row)}; it detects a "
            f"difference of {row['detectable']:.3f}, with intervals of ± {row['half_width']:.3f}."
        )


def _of_audits(audits: Mapping[str, Document]) -> Iterator[str]:
    sentences = {policy: _audit(audit) for policy, audit in audits.items() if audit["status"] != "PASS"}
    for sentence, policies in _grouped(sentences).items():
        yield f"Transport audit of {', '.join(policies)}: {sentence}"


def _audit(audit: Document) -> str:
    """The result of an audit, and the number of labels with which it would pass."""
    state = f"{audit['status'].replace('_', ' ').lower()} with {audit['labels']} labels"
    facts = f"standard deviation of label minus calibrated score {audit['residual_sd']:.3f}, {audit['base_labels']} base labels"
    bias = f"the bias is within ± {audit['margin']:g}"
    if audit["status"] == "FAIL":
        return f"{state}: the calibration is biased for it, which further labels of the audit do not change ({facts})."
    if audit["labels_to_pass"] is None:
        return f"{state}; to establish that {bias}, further base labels are needed as well{_of_both(audit)} ({facts})."
    return (
        f"{state}; if the calibration holds, {audit['labels_to_pass']} labels establish with 80 % probability that {bias} "
        f"({facts})."
    )


def _of_both(audit: Document) -> str:
    """How many labels of base and target would do; nothing in plans of earlier versions."""
    count = audit.get("labels_of_both_to_pass")
    return "" if count is None else f": for example {count} labels of the base and {count} of the target"


def _grouped(sentences: Mapping[str, str]) -> dict[str, list[str]]:
    """The policies of each sentence."""
    policies: dict[str, list[str]] = {}
    for policy, sentence in sentences.items():
        policies.setdefault(sentence, []).append(policy)
    return policies


def _study(row: Mapping[str, Any]) -> str:
    """Labels and cost of a study."""
    labels = set(row["labels"].values())
    each = (
        f"{row['m']} of them with labels of every policy"
        if len(labels) == 1
        else "labelled prompts: " + ", ".join(f"{policy} {count}" for policy, count in row["labels"].items())
    )
    money = "" if row["cost"] is None else f", {_dollars(row['cost'])}"
    return f"{each} ({row['total_labels']} labels in total{money})"


def _range(value: float, ends: list[float]) -> str:
    return f"{decimal(value)} {interval(*ends)}"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _dollars(value: float) -> str:
    return f"${value:,.2f}"
