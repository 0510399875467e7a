"""Log probabilities that are to be computed again: their finished items are forgotten, and their files stale.

How often the scoring contexts were computed again stands in `.arena-cje/redo.json`, as a parameter of the rules that score: when
it grows, the next start of the workflow makes their files anew, and what follows from them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from arena_cje import files
from arena_cje.errors import UserError, did_you_mean

COUNTS = Path(".arena-cje/redo.json")


def logprobs(folder: Path, policies: list[str]) -> list[str]:
    """Have the log probabilities of policies computed again; returns all policies that share their scoring contexts.

    folder: working directory of a run whose data set is there, which names the context of each policy. Raises a `UserError`
    for an unknown policy, where there is no data set, and while Snakemake runs in the folder.
    """
    from arena_cje.stages.doctor import check_at_rest  # rules read this module at every start, and need no `doctor`

    check_at_rest(folder)
    context_of = _contexts(folder)
    if not policies:
        raise UserError(f"no policy is named; this run has log probabilities under {', '.join(context_of)}")
    for name in policies:
        if name not in context_of:
            names = ", ".join(context_of)
            raise UserError(
                f"{name!r} is not a policy of this run with log probabilities{did_you_mean(name, context_of)}; it has: {names}"
            )
    contexts = {context_of[name] for name in policies}
    for context in contexts:
        for journal in ("score", "calls/score"):
            shutil.rmtree(folder / "results" / "journal" / journal / context, ignore_errors=True)
    counts = _counts(folder)
    files.write_json(folder / COUNTS, counts | {name: counts.get(name, 0) + 1 for name in contexts})
    return [name for name, context in context_of.items() if context in contexts]


def parameter(context: str, folder: Path = Path()) -> dict[str, int]:
    """The parameter of a scoring context that was to be computed again; none where it never was."""
    counts = _counts(folder)
    return {"again": counts[context]} if context in counts else {}


def _counts(folder: Path) -> dict[str, int]:
    try:
        counts = files.read_json(folder / COUNTS)
    except UserError:
        return {}
    return counts if isinstance(counts, dict) else {}


def _contexts(folder: Path) -> dict[str, str]:
    """The scoring context of each policy by the newest data set of the run."""
    summaries = sorted((folder / "results").glob("coverage_*/summary.json"), key=lambda path: path.stat().st_mtime)
    if not summaries:
        raise UserError(f"{folder}: there is no data set yet (results/coverage_*/summary.json); run the workflow first")
    try:
        recorded = files.read_json(summaries[-1])["provenance"]["policies"]
        contexts = {name: block["context"] for name, block in recorded.items()}
    except (LookupError, TypeError, AttributeError):
        raise UserError(
            f"{summaries[-1]}: lacks the scoring contexts of its policies; run the workflow again to make it"
        ) from None
    return {name: context for name, context in contexts.items() if (folder / "results" / "logprobs" / context).is_dir()}
