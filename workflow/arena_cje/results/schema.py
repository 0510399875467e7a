"""What a results file must look like: its JSON Schema, and what one policy's entries must say together.

`workflow/schemas/results.schema.json` (draft 2020-12) declares every field. A schema cannot follow a name from one field
to its place in an array, so that the rest stands here: the arrays have a place for each target policy, every policy has
its verdict, and a refused policy has a number under `refused` and nowhere among those that are published.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).parents[2] / "schemas" / "results.schema.json"
BY_TARGET = ("estimates", "standard_errors", "confidence_intervals")
BY_POLICY = ("verdicts", "se_components", "n_used")


def check(document: dict[str, Any], where: str | Path) -> None:
    """Raise a `ValueError` for the first thing that is not as declared: the document was made here, so it is a bug."""
    problem = next(problems(document), None)
    if problem is not None:
        raise ValueError(f"{where}: not a results file as declared in {SCHEMA.name}: {problem}")


def problems(document: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the content of a results file, one sentence each."""
    found = [
        f"{error.json_path} {error.message:.200}" for error in sorted(_validator().iter_errors(document), key=_place)
    ]
    yield from found or _relations(document)


def _place(error: Any) -> list[str]:
    return [str(part) for part in error.absolute_path]


@functools.cache
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # not for those who only read results

    return Draft202012Validator(read_json(SCHEMA))


def _relations(document: dict[str, Any]) -> Iterator[str]:
    """What entries must say together, given that each is right by itself."""
    targets, base = document["metadata"]["target_policies"], document["base_policy"]["policy"]
    policies = {base, *targets}
    for field in BY_TARGET:
        if len(document[field]) != len(targets):
            yield f"{field} has {len(document[field])} entries, expected one for each of {len(targets)} target policies"
            return
    named = {field: set(document[field]) for field in BY_POLICY}
    named["metadata.diagnostics"] = set(document["metadata"]["diagnostics"])
    for field, names in named.items():
        if names != policies:
            yield f"{field} is of {sorted(names)}, expected {sorted(policies)}"
            return
    if set(document["differences_to_base"]) != set(targets):
        yield f"differences_to_base is of {sorted(document['differences_to_base'])}, expected {sorted(targets)}"
        return
    yield from _refusals(document, targets, base)


def _refusals(document: dict[str, Any], targets: list[str], base: str) -> Iterator[str]:
    """Whoever is refused has its number under `refused`, and nowhere else."""
    refused = {policy for policy, verdict in document["verdicts"].items() if verdict["level"] == "refuse"}
    if set(document["refused"]) != refused:
        yield f"refused holds {sorted(document['refused'])}, but the verdicts refuse {sorted(refused)}"
    published = {policy: [document[field][k] for field in BY_TARGET] for k, policy in enumerate(targets)}
    published[base] = [document["base_policy"][field] for field in ("estimate", "se", "confidence_interval")]
    for policy, numbers in published.items():
        if policy in refused and numbers != [None, None, [None, None]]:
            yield f"policy {policy!r} is refused, but {numbers} stands among the published numbers, expected null"
    for policy, found in document["differences_to_base"].items():
        if {policy, base} & refused and found["difference"] is not None:
            yield f"differences_to_base.{policy} is {found['difference']}, but {sorted({policy, base} & refused)} is refused"
    if document["best_policy"]["policy"] in refused:
        yield f"best_policy is {document['best_policy']['policy']!r}, which is refused"
