"""A plan in sentences, for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        yield f"Pilot: {pilot['prompts']} prompts by {pilot['estimator']}; labelled prompts: {counts}."
        correction = f", corrected over {len(targets)} differences" if len(targets) > 1 else ""
        yield (
            f"At these sizes, difference to {pilot['base']}: half-width of the {_percent(1 - pilot['alpha'])} interval, and what "
            f"is detected with power {power:g}{correction}; in brackets what the pilot leaves open:"
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
        yield "A pilot has labels on responses of the targets, best to 50 or more prompts that the base has labels on, too."


def _of_goal(plan: Mapping[str, Any]) -> Iterator[str]:
    if not plan["choices"]:
        return
    goal = plan["goal"]
    parts = []
    if goal["difference"] is not None:
        parts.append(f"detect a difference of {goal['difference']:g} with power {goal['power']:g}")
    if goal["half_width"] is not None:
        parts.append(f"have intervals of ± {goal['half_width']:g}")
    yield f"To {' and '.join(parts)} for every target, with a margin for a pilot of this size:"
    for row in plan["choices"]:
        if row["m"] is None:
            yield f"  {row['n']:>8} prompts: not with any number of labels"
        else:
            yield f"  {row['n']:>8} prompts: {_study(row)}"
    if plan["cheapest"] is not None:
        row = plan["cheapest"]
        yield f"Cheapest: {row['n']} prompts, {_study(row)}."
    elif None in plan["prices"].values():
        yield "Which is cheapest depends on prices that are unknown here: give --price-judge and --price-label."


def _of_budget(plan: Mapping[str, Any]) -> Iterator[str]:
    if (row := plan["best_for_budget"]) is not None:
        yield (
            f"Best for {_dollars(plan['goal']['budget'])}: {row['n']} prompts, {_study(row)}; detects {row['detectable']:.3f}, "
            f"intervals of ± {row['half_width']:.3f}."
        )


def _of_audits(audits: Mapping[str, Document]) -> Iterator[str]:
    sentences = {policy: _audit(audit) for policy, audit in audits.items() if audit["status"] != "PASS"}
    for sentence, policies in _grouped(sentences).items():
        yield f"Transport audit of {', '.join(policies)}: {sentence}"


def _audit(audit: Document) -> str:
    """What an audit says, and what it takes to pass."""
    state = f"{audit['status'].replace('_', ' ').lower()}, with {audit['labels']} labels"
    facts = f"residuals of {audit['residual_sd']:.3f}, {audit['base_labels']} labels of the base"
    if audit["labels_to_pass"] is None:
        return f"{state}; PASS within ± {audit['margin']:g} takes more labels of the base first ({facts})."
    return (
        f"{state}; where the calibration holds, PASS within ± {audit['margin']:g} is reachable with {audit['labels_to_pass']} "
        f"labels, in 8 of 10 cases ({facts})."
    )


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
        f"{row['m']} of them labelled"
        if len(labels) == 1
        else "labelled: " + ", ".join(f"{policy} {count}" for policy, count in row["labels"].items())
    )
    money = "" if row["cost"] is None else f", {_dollars(row['cost'])}"
    return f"{each} ({row['total_labels']} labels in all{money})"


def _range(value: float, ends: list[float]) -> str:
    return f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _dollars(value: float) -> str:
    return f"${value:,.2f}"
