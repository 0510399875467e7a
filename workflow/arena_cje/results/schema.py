"""The format of a results file: its JSON Schema, and the relations between its entries.

`results.schema.json` beside this file (draft 2020-12) declares every field. A JSON Schema cannot express relations between
a name in one field and a position in another, so that these are checked here: the arrays have an element for each target
policy, every policy has a verdict, and the number of a refused policy is under `refused` and not among the published ones.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).with_name("results.schema.json")
BY_TARGET = ("estimates", "standard_errors", "confidence_intervals")
BY_POLICY = ("verdicts", "se_components", "n_used")


def check(document: dict[str, Any], where: str | Path) -> None:
    """Raise a `ValueError`, not a `UserError`, for the first problem: the document was made here, so it is a bug."""
    problem = next(problems(document), None)
    if problem is not None:
        raise ValueError(f"{where}: not a results file as declared in {SCHEMA.name}: {problem}")


def problems(document: dict[str, Any]) -> Iterator[str]:
    """The problems of the content of a results file, a sentence each; relations are checked if the schema holds."""
    errors = sorted(_validator().iter_errors(document), key=lambda error: [str(part) for part in error.absolute_path])
    yield from [f"{error.json_path} {error.message:.200}" for error in errors] or _relation_problems(document)


@functools.cache
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # only results that are written are checked

    return Draft202012Validator(read_json(SCHEMA))


def _relation_problems(document: dict[str, Any]) -> Iterator[str]:
    """Problems of the relations between entries, given that every entry is as the schema declares it."""
    targets, base = document["metadata"]["target_policies"], document["base_policy"]["policy"]
    policies = {base, *targets}
    for field in BY_TARGET:
        if len(document[field]) != len(targets):
            yield f"{field} has {len(document[field])} entries, expected one for each of {len(targets)} target policies"
            return
    names_by_field = {field: set(document[field]) for field in BY_POLICY}
    names_by_field["metadata.diagnostics"] = set(document["metadata"]["diagnostics"])
    for field, names in names_by_field.items():
        if names != policies:
            yield f"{field} is of {sorted(names)}, expected {sorted(policies)}"
            return
    if "remedies" in document:
        yield from _remedy_problems(document, policies)
    if set(document["differences_to_base"]) != set(targets):
        yield f"differences_to_base is of {sorted(document['differences_to_base'])}, expected {sorted(targets)}"
        return
    yield from _refusal_problems(document, targets, base)


def _remedy_problems(document: dict[str, Any], policies: set[str]) -> Iterator[str]:
    """Reasons that are not ok without a remedy, and remedies of other reasons."""
    if set(document["remedies"]) != policies:
        yield f"remedies is of {sorted(document['remedies'])}, expected {sorted(policies)}"
        return
    for policy, remedies in document["remedies"].items():
        lifted = {remedy["reason"] for remedy in remedies}
        reasons = {reason["code"] for reason in document["verdicts"][policy]["reasons"] if reason["level"] != "ok"}
        if lifted != reasons:
            yield f"remedies.{policy} lifts {sorted(lifted)}, but the verdict has {sorted(reasons)}"


def _refusal_problems(document: dict[str, Any], targets: list[str], base: str) -> Iterator[str]:
    """Refused policies whose number is not under `refused`, or is also published."""
    refused = {policy for policy, verdict in document["verdicts"].items() if verdict["level"] == "refuse"}
    if set(document["refused"]) != refused:
        yield f"refused holds {sorted(document['refused'])}, but the verdicts refuse {sorted(refused)}"
    published = {policy: [document[field][k] for field in BY_TARGET] for k, policy in enumerate(targets)}
    published[base] = [document["base_policy"][field] for field in ("estimate", "se", "confidence_interval")]
    for policy, numbers in published.items():
        if policy in refused and numbers != [None, None, [None, None]]:
            yield f"policy {policy!r} is refused, but {numbers} is among the published numbers, expected null"
    differences = {
        f"differences_to_base.{policy}": ({policy, base}, entry)
        for policy, entry in document["differences_to_base"].items()
    }
    decision = document.get("decision", {})
    for policy, entry in decision.get("policies", {}).items():
        differences[f"decision.policies.{policy}"] = ({policy, decision["against"]}, entry)
    for place, (pair, entry) in differences.items():
        numbers = [entry["difference"], *entry.get("corrected_interval", [])]
        if pair & refused and any(number is not None for number in numbers):
            yield f"{place} is {numbers}, but {sorted(pair & refused)} is refused"
    if document["best_policy"]["policy"] in refused:
        yield f"best_policy is {document['best_policy']['policy']!r}, which is refused"
