"""Data in the CJE format into arrays, and back.

A row without a judge score is dropped and counted; a missing target log probability leaves its row out for that policy
alone; whatever cannot be right is refused with file and line. Labels are masked in every copy of a response, in the
order of a hash of the prompt id.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.cje_format import OUTSIDE_SUPPORT, Response, identified, log_ratios, mask, named, read_responses
from arena_cje.errors import UserError, nearest
from arena_cje.estimation.records import Draws, Logged
from arena_cje.files import Row
from arena_cje.labeling import first_come
from arena_cje.schemas import DRAWS, LOGGED

if TYPE_CHECKING:
    from arena_cje.cje_format import Source

NO_SCORE = "no judge score"


def read_logged(
    source: Source, base_policy: str | None = None, policies: Sequence[str] | None = None
) -> tuple[list[Response], str, tuple[str, ...]]:
    """The checked rows, the base policy's name, and the target policies (those of the first row, unless given)."""
    responses = read_responses(LOGGED, source)
    if not responses:
        raise UserError(f"{named(source)}: no rows; expected one response of the base policy a line")
    _refuse_repeated_text(responses)
    base = _base_policy(responses, base_policy)
    declared = tuple(policies) if policies is not None else _first_policies(responses)
    if base in declared:
        raise UserError(
            f"{named(source)}: target policy {base!r} has the base policy's name; "
            "say in a field `base_policy` what the base is called"
        )
    return responses, base, declared


def load_logged(
    source: Source, *, base_policy: str | None = None, policies: Sequence[str] | None = None
) -> tuple[Logged, dict[str, Any]]:
    """The logged rows that have a judge score, as arrays, and how many were read and dropped, and why."""
    responses, base, declared = read_logged(source, base_policy, policies)
    ratios = [log_ratios(response, declared) for response in responses]
    scored = [k for k, response in enumerate(responses) if response.judge_score is not None]
    kept = [responses[k] for k in scored]
    if not kept:
        raise UserError(f"{named(source)}: none of {len(responses)} rows has a judge_score")
    logged = Logged(
        base,
        declared,
        np.array([response.prompt_id for response in kept]),
        np.array([ratios[k] for k in scored]).reshape(len(kept), len(declared)),
        np.array([response.judge_score for response in kept], dtype=float),
        np.array([response.oracle_label for response in kept], dtype=float),
    )
    return logged, _counts(responses, kept)


def load_draws(source: Source, policy: str, prompt_ids: Sequence[str]) -> tuple[Draws, dict[str, Any]]:
    """The fresh draws of a policy, row i holding those of prompt i, and how many were read and left aside.

    A draw without a judge score stays NaN. A prompt without a line of its own is refused: leaving it out would change
    the population of prompts without a word.
    """
    responses = read_draws(source, policy)
    of_prompt: dict[str, list[Response]] = {}
    for response in responses:
        of_prompt.setdefault(response.prompt_id, []).append(response)
    missing = [name for name in dict.fromkeys(prompt_ids) if name not in of_prompt]
    if missing:
        raise UserError(
            f"{named(source)}: {policy!r} has no fresh draw for {len(missing)} of the logged prompts, "
            f"first {missing[0]!r}; draw and judge a response to each, or take these prompts out of the logged data"
        )
    width = max(len(of_prompt[name]) for name in prompt_ids)
    scores, labels = np.full((2, len(prompt_ids), width), np.nan)  # (n, m) each
    for i, name in enumerate(prompt_ids):
        for j, draw in enumerate(of_prompt[name]):
            scores[i, j] = math.nan if draw.judge_score is None else draw.judge_score
            labels[i, j] = math.nan if draw.judge_score is None or draw.oracle_label is None else draw.oracle_label
    wanted = set(prompt_ids)
    counts = _counts(responses, [response for response in responses if response.judge_score is not None])
    return Draws(policy, scores, labels), counts | {
        "not_logged": sum(response.prompt_id not in wanted for response in responses)
    }


def read_draws(source: Source, policy: str) -> list[Response]:
    """The checked fresh draws of a policy, those of a prompt in the order of draw_idx."""
    responses = read_responses(DRAWS, source)
    for response in responses:
        for field in ("policy", "target_policy"):
            name = response.row.get(field)
            if name is not None and name != policy:
                raise UserError(f"{response.where}: {field} is {name!r} among the fresh draws of {policy!r}")
    return sorted(responses, key=lambda response: response.draw_idx)


def check_brought(path: Path, *, results: Path) -> None:
    """Refuse a file that cannot be brought along: one that is not there, or one that this run's results would replace."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a JSONL file in the CJE format")
    if not path.is_file():
        raise UserError(f"{path}: no such file in {Path.cwd()}; name a JSONL file in the CJE format")
    if path.resolve().is_relative_to(results.resolve()):
        raise UserError(
            f"{path}: lies among the results of this working directory, which this run would replace; copy it elsewhere, "
            "or choose another --directory"
        )


def draw_paths(folder: Path, known: Collection[str] = ()) -> dict[str, Path]:
    """Files of fresh draws by policy; `known` policies may have a name that itself ends in `_responses`."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else f"no such folder in {Path.cwd()}"
        raise UserError(f"{folder}: {what}; expected a folder of fresh draws, a file for each policy")
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.jsonl")):
        short = path.stem.removesuffix("_responses")
        name = path.stem if path.stem in known else short
        if name not in found or path.stem == f"{name}_responses":
            found[name] = path
    if not found:
        raise UserError(f"{folder}: no fresh draws in it; expected files POLICY_responses.jsonl or POLICY.jsonl")
    return found


def find_draws(fresh_draws: str | Path | Mapping[str, Source], base: str, policies: Sequence[str]) -> dict[str, Source]:
    """Where the fresh draws of each target lie, the base's among them when they are there.

    In a directory `{policy}_responses.jsonl` is preferred to `{policy}.jsonl`.
    """
    found = dict(fresh_draws) if isinstance(fresh_draws, Mapping) else draw_paths(Path(fresh_draws), {base, *policies})
    where = "fresh_draws" if isinstance(fresh_draws, Mapping) else str(fresh_draws)
    for name in found:
        if policies and name not in (base, *policies):
            known = (base, *policies)
            raise UserError(
                f"{where}: fresh draws of {name!r}, which the logged data does not know{nearest(name, known)}; "
                f"its policies: {', '.join(known)}"
            )
    for name in policies:
        if name not in found:
            raise UserError(
                f"{where}: no fresh draws of target policy {name!r}; expected {name}_responses.jsonl or {name}.jsonl"
            )
    return {name: found[name] for name in (base, *(policies or sorted(found))) if name in found}


def bring(
    logged_path: str | Path,
    fresh_dir: str | Path | None,
    coverage: float,
    seed: int,
    target_labels: float,
    base_policy: str | None = None,
) -> tuple[list[Row], dict[str, list[Row]], dict[str, Any]]:
    """Data brought along, with labels on `coverage` of its rows: logged rows, fresh draws by policy, and a summary.

    The base's own fresh draws are the logged responses again: they carry a label where the logged row kept the same
    one. The targets keep labels on a share `target_labels` of their draws.
    """
    responses, base, policies = read_logged(logged_path, base_policy)
    for response in responses:
        log_ratios(response, policies)
    scored = [response for response in responses if response.judge_score is not None]
    kept = first_come([response.prompt_id for response in scored], seed, coverage, _labelled(scored))
    sources = find_draws(fresh_dir, base, policies) if fresh_dir is not None else {}
    fresh, counts = {}, {}
    for name, source in sources.items():
        draws = read_draws(source, name)
        if name == base:
            keep = _same_labels(draws, list(compress(scored, kept.mask)))
        else:
            load_draws(source, name, [response.prompt_id for response in scored])
            keep = first_come([draw.prompt_id for draw in draws], seed, target_labels, _labelled(draws)).mask
        fresh[name] = mask([identified(draw) for draw in draws], keep)
        counts[name] = {
            "n_responses": len(draws),
            "n_labels_found": int(_labelled(draws).sum()),
            "n_labels": int(sum(keep)),
        }
    summary = _counts(responses, scored) | {
        "base_policy": base,
        "target_policies": list(policies or (name for name in sources if name != base)),
        "coverage": coverage,
        "n_labels_wanted": kept.wanted,
        "n_labels_found": kept.found,
        "n_oracle": int(kept.mask.sum()),
        "fresh_draws": counts,
    }
    return mask([identified(response) for response in scored], kept.mask), fresh, summary


def write_logged(path: str | Path, rows: Iterable[Row]) -> None:
    """Logged rows as CJE JSONL; a target log probability of -inf is written in its agreed form."""
    LOGGED.write(path, [_without_infinity(row) for row in rows])


def write_draws(path: str | Path, rows: Iterable[Row]) -> None:
    """Fresh draws as CJE JSONL."""
    DRAWS.write(path, rows)


def _base_policy(responses: Sequence[Response], asked: str | None) -> str:
    names = {r.row["base_policy"]: r.where for r in reversed(responses) if r.row.get("base_policy") is not None}
    if asked is not None:
        names.setdefault(asked, "the call")
    if len(names) > 1:
        told = ", ".join(f"{name!r} ({where})" for name, where in names.items())
        raise UserError(f"the logged data has more than one base policy: {told}; one analysis has one base policy")
    return next(iter(names), "base")


def _first_policies(responses: Sequence[Response]) -> tuple[str, ...]:
    """Targets of the first row that has any: a name that comes up later is more likely a slip than a policy."""
    return next((tuple(scored) for r in responses if (scored := r.row.get("target_policy_logprobs"))), ())


def _refuse_repeated_text(responses: Sequence[Response]) -> None:
    """Rows of one prompt that neither a draw_idx nor their text tells apart are one row, twice."""
    seen: dict[tuple[str, str | None], str] = {}
    for response in responses:
        if response.row.get("draw_idx") is not None:
            continue
        key = (response.prompt_id, response.row.get("response"))
        if key in seen:
            raise UserError(
                f"{response.where}: prompt_id {response.prompt_id!r} appears again with the same response "
                f"(first at {seen[key]}); keep one of the two, or number them by draw_idx if the policy said it twice"
            )
        seen[key] = response.where


def _counts(read: Sequence[Response], kept: Sequence[Response]) -> dict[str, Any]:
    dropped = len(read) - len(kept)
    lost = int(_labelled(read).sum() - _labelled(kept).sum())
    reasons = {NO_SCORE: dropped} if dropped else {}
    return {"n_responses": len(read), "n_rows": len(kept), "dropped": reasons, "n_labels_dropped": lost}


def _labelled(responses: Sequence[Response]) -> np.ndarray:
    return np.array([response.oracle_label is not None for response in responses], dtype=bool)


def _same_labels(draws: Sequence[Response], kept: Sequence[Response]) -> list[bool]:
    """Which of the base's draws carry the label that their logged row kept."""
    label_of = {(response.prompt_id, response.draw_idx): response.oracle_label for response in kept}
    keep = []
    for draw in draws:
        label = label_of.get((draw.prompt_id, draw.draw_idx))
        if label is not None and draw.oracle_label is not None and label != draw.oracle_label:
            raise UserError(
                f"{draw.where}: oracle_label is {draw.oracle_label}, but the logged row of prompt {draw.prompt_id!r} "
                f"has {label}; the base's fresh draws are the logged responses again and carry the same labels"
            )
        keep.append(label is not None and draw.oracle_label is not None)
    return keep


def _without_infinity(row: Row) -> Row:
    targets = row.get("target_policy_logprobs") or {}
    outside = [name for name, value in targets.items() if value == -math.inf]
    if not outside:
        return row
    metadata = row.get("metadata") or {}
    named = list(dict.fromkeys([*metadata.get("outside_support", []), *outside]))
    written = {name: OUTSIDE_SUPPORT if name in outside else value for name, value in targets.items()}
    return row | {"target_policy_logprobs": written, "metadata": metadata | {"outside_support": named}}
