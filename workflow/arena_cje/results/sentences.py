"""Sentences of a result that the terminal, notebooks and the dashboard share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arena_cje import estimators
from arena_cje.estimation.decision import words
from arena_cje.estimation.records import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.results.record import ResultRecord

MEANING = (
    "Estimate: mean oracle label that the policy would earn on prompts like these. Interval: includes prompt sampling and label "
    "uncertainty."
)
MEANING_OF_ESS = (
    "ESS: effective sample size ÷ n after capping; raw ESS: before capping. Raw ESS decides the overlap verdict. Max weight: "
    "after capping, where the mean weight is 1."
)
MEANING_OF_LABELS = "Labels: effective number of labels in this policy's score range."
MEANING_OF_OWN_LABELS = (
    "It does not count labels of the policy's own responses; where these correct the estimate, a note has their number."
)
OWN_LABELS = (
    "Labels of a policy's own responses: set `oracle.target_labels`; with your own data, put `oracle_label` into its fresh draws "
    "or add `probes`."
)


def legend(result: ResultRecord) -> str:
    """What the columns of the table mean; those of the weights only where the estimator uses them."""
    diagnostics = result.document["metadata"]["diagnostics"].values()
    own = any(entry.get("own_labels_used") for entry in diagnostics)
    parts = (
        MEANING,
        MEANING_OF_ESS if uses_weights(result) else "",
        MEANING_OF_LABELS,
        MEANING_OF_OWN_LABELS if own else "",
    )
    return " ".join(filter(None, parts))


def uses_weights(result: ResultRecord) -> bool:
    diagnostics = result.document["metadata"]["diagnostics"].values()
    return any(entry.get("ess") is not None for entry in diagnostics)


def differences_title(decision: Mapping[str, Any]) -> str:
    """Title of the differences that decide: the policy that all are compared with, the kind of intervals, the margin."""
    level, count = f"{100 * (1 - decision['alpha']):g} %", decision["n_differences"]
    intervals = f"simultaneous {level} intervals of {count} differences" if count > 1 else f"{level} interval"
    return f"Difference to {decision['against']} ({intervals}; margin {decision['margin']:g})"


def difference_remark(decision: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """What the difference of a policy decides, with a caution where it depends on judge scores alone."""
    caution = " (caution: judge scores alone)" if entry["judge_only"] else ""
    return words(entry["status"], decision["margin"]) + caution


def open_sentences(result: ResultRecord) -> list[str]:
    """What would decide the undecided differences, a sentence each."""
    entries = result.decision.get("policies", {}).values()
    return [entry["sentence"] for entry in entries if entry["status"] == "not_yet_known"]


def judge_sentences(result: ResultRecord) -> list[str]:
    """How many labels this judge and further judges save; empty where scores are not calibrated, and in earlier files."""
    entry = result.document.get("judge_worth")
    if not entry or not entry["policies"]:
        return []
    level = f"{100 * (1 - result.document['metadata']['alpha']):g} % interval"
    sentences = []
    for policy, worth in entry["policies"].items():
        of_policy = "" if policy == result.base_policy else f" on responses of {policy}"
        if worth["why_unknown"]:
            sentences.append(f"Labels that this judge saves{of_policy}: unknown, because of {worth['why_unknown']}.")
        else:
            n_saved = int(_of_ten(worth["share"]))
            meaning = "" if n_saved in (0, 10) else f": {10 - n_saved} labels with it are as precise as 10 without it"
            sentences.append(f"This judge saves {_tenths(worth, level)}{of_policy or meaning}.")
    for judge, worth in entry["further_judges"].items():
        if worth["why_unknown"]:
            sentences.append(f"Labels that judge {judge} saves: unknown, because of {worth['why_unknown']}.")
            continue
        sentence, (low, high) = f"Judge {judge} saves {_tenths(worth, level)}", worth["ratio_interval"]
        if low is not None:
            insignificant = "" if high < 1 or low > 1 else ", no significant difference"
            sentence += f"; it needs {worth['label_ratio']:.2f} times as many labels as this judge"
            sentence += f" ({level} {low:.2f} to {high:.2f}{insignificant})"
        sentences.append(f"{sentence}.")
    return sentences


def left_out_sentences(result: ResultRecord) -> list[str]:
    """How many rows of the data no estimate uses, and why; empty where all are used, and in files of earlier versions."""
    data = result.document["metadata"].get("data", {})
    sentences = []
    if reasons := data.get("dropped"):
        why = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
        labels = f"; with an oracle label: {count}" if (count := data.get("n_labels_dropped")) else ""
        sentences.append(
            f"Left out: {sum(reasons.values())} of {data['n_responses']} logged responses ({why}{labels})."
        )
    name = result.document["metadata"]["estimator"]
    if name in estimators.NAMES and not estimators.needs_draws(name):
        return sentences
    policies_by_text: dict[str, list[str]] = {}
    for policy, draws in data.get("fresh_draws", {}).items():
        parts = [
            f"{count} of {draws['n_responses']} fresh draws ({reason})" for reason, count in draws["dropped"].items()
        ]
        if count := draws.get("not_logged"):
            parts.append(f"{count} fresh draws of prompts without a judged logged response")
        if count := draws.get("prompts_without_draws"):
            parts.append(f"{count} prompts without a fresh draw")
        if parts:
            policies_by_text.setdefault(", ".join(parts), []).append(policy)
    sentences += [f"Left out for {', '.join(policies)}: {text}." for text, policies in policies_by_text.items()]
    return sentences


def reason_sentences(result: ResultRecord) -> list[str]:
    """The reasons of the verdicts, worst level first, each once with all the policies that have it.

    A refused policy has only the reasons of its refusal here; the others are in the results file.
    """
    policies: dict[tuple[str, str], list[str]] = {}
    for level in reversed(LEVELS):
        for policy, verdict in result.verdicts.items():
            for reason in verdict.reasons:
                if reason.level == level and (verdict.ok or level == "refuse"):
                    policies.setdefault((level, reason.sentence), []).append(policy)
    return [
        f"{'note' if level == 'ok' else level}: {', '.join(names)}: {sentence}"
        for (level, sentence), names in policies.items()
    ]


def remedy_sentences(result: ResultRecord) -> list[str]:
    """What would lift the verdicts that are not ok, a sentence each with all the policies that it concerns."""
    policies: dict[str, list[str]] = {}
    for policy in result.all_policies:
        for sentence in result.remedies(policy):
            policies.setdefault(sentence, []).append(policy)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in policies.items()]


def own_labels_sentences(result: ResultRecord) -> list[str]:
    """Where labels of a policy's own responses go, if a remedy takes some."""
    kinds = {remedy["kind"] for remedies in result.document.get("remedies", {}).values() for remedy in remedies}
    return [OWN_LABELS] if "own_labels" in kinds else []


def _tenths(worth: dict[str, Any], level: str) -> str:
    """The share of labels that a judge saves, as a number of 10."""
    low, high = worth["interval"]
    count = f"{_of_ten(worth['share'])} of 10 labels"
    if low is None:
        return count
    ends = [_of_ten(low), _of_ten(high)]
    if ends[0] == ends[1]:
        ends = [f"{10 * max(end, 0.0):.1f}" for end in (low, high)]
    return f"{count} ({level} {ends[0]} to {ends[1]})"


def _of_ten(share: float) -> str:
    """A share in tenths; a judge that makes the labels vary more saves none."""
    return f"{10 * max(share, 0.0):.0f}"
