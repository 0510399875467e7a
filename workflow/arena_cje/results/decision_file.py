"""decision.json: the decision by the recommended estimator, as a file, as text and as an answer about shipping."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError, did_you_mean, printable
from arena_cje.estimation.decision import SUPPORTS_SHIPPING
from arena_cje.files import read_json
from arena_cje.results.recommendation import recommend, recommended_first
from arena_cje.results.result import from_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from arena_cje.results.record import ResultRecord

WIDTH = 110  # of a line on the terminal


def document(results: Sequence[ResultRecord], coverage: str) -> dict[str, Any]:
    """Content of decision.json: the decision by the recommended estimator, and the headlines of all, its own first."""
    recommendation = recommend(results)
    ordered = recommended_first(results)
    return {
        "coverage": coverage,
        "recommended": asdict(recommendation),
        "decision": ordered[0].decision,
        "headlines": [{"estimator": one.name, "headline": one.decision["headline"]} for one in ordered],
    }


def is_decision(content: Any) -> bool:
    """Whether the content of a file is that of decision.json."""
    return isinstance(content, dict) and {"recommended", "decision"} <= content.keys()


def text(content: Mapping[str, Any]) -> str:
    """A decision for the terminal: its headline, why this estimator, then a sentence about each policy."""
    decision = content["decision"]
    sentences = [entry["sentence"] for entry in decision["policies"].values()]
    lines = [decision["headline"], content["recommended"]["reason"], *sentences]
    return printable("\n".join(line for part in lines for line in textwrap.wrap(part, WIDTH, subsequent_indent="  ")))


def answer(file: Path, policy: str) -> tuple[str, int]:
    """The answer of a decision about shipping a policy: a sentence, and 0 (supported), 1 (not supported) or 2 (not yet known).

    file: decision.json, or a results file. Raises a `UserError` where the file holds no decision about the policy.
    """
    if file.is_dir():
        raise UserError(f"{file}: is a folder{_what_there_is(file / 'decision.json')}")
    if not file.exists():
        raise UserError(f"{file}: no such file{_what_there_is(file)}")
    document = read_json(file)
    if is_decision(document):
        decision, name = document["decision"], document["recommended"]["estimator"]
    else:
        result = from_document(document, file)
        decision, name = result.decision, result.name
    entries = decision.get("policies")
    if not entries:
        raise UserError(f"{file}: was made by an earlier version and has no decision; run the analysis again")
    if policy == decision["against"]:
        raise UserError(
            f"{file}: {policy!r} is the policy that the others are compared with; name one of {', '.join(entries)}"
        )
    if policy not in entries:
        raise UserError(
            f"{file}: no policy {policy!r}{did_you_mean(policy, entries)}; policies with a decision: {', '.join(entries)}"
        )
    status = entries[policy]["status"]
    code = 0 if status in SUPPORTS_SHIPPING else 2 if status == "not_yet_known" else 1
    verdict = ("supported", "not supported", "neither supported nor ruled out yet")[code]
    return f"Shipping {policy} is {verdict} ({name}). {entries[policy]['sentence']}", code


def _what_there_is(file: Path) -> str:
    """What to name in place of a file that is not there, and how it is made."""
    results = [path for path in sorted(file.parent.glob("*.json")) if path.with_suffix(".influence.parquet").is_file()]
    there = f"; results files that are there: {', '.join(map(str, results))}" if results else ""
    if not file.parent.name.startswith("coverage_"):
        return there or "; expected results/coverage_*/decision.json, or a results file beside it"
    return f"{there}; in the folder of the run `snakemake --cores 2 results/{file.parent.name}/{file.name}` makes it"
