"""Whether files can be analysed, by which estimators, and if not, why: `arena-cje validate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje import estimators
from arena_cje.data import convert
from arena_cje.data.draws import draw_paths, find_draws, group_by_prompt, read_draws
from arena_cje.data.logged import logged_arrays, read_logged
from arena_cje.data.reading import Reading
from arena_cje.data.rows import n_labels, read_responses
from arena_cje.data.schemas import DRAWS
from arena_cje.errors import UserError
from arena_cje.estimation.calibration import MIN_LABELLED_PROMPTS
from arena_cje.files import read_rows_with_places

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arena_cje.data.rows import Response

LOGGED_FIELDS = {"base_policy", "base_policy_logprob", "target_policy_logprobs"}
NATIVE_FIELDS = {"judge_score", "judge_scores", "judge_distribution", "oracle_label", *LOGGED_FIELDS}


@dataclass(frozen=True)
class Usability:
    """The account of one file or folder."""

    usable: bool
    lines: tuple[str, ...]


def usability(path: Path, fresh_draws: Path | None = None, base_policy: str | None = None) -> Usability:
    """Whether a file or a folder can be analysed.

    path: logged data, a file or folder of fresh draws, a folder that `arena-cje convert` wrote, or a file of another tool;
    fresh_draws: the folder of the targets' fresh draws beside logged data.
    """
    try:
        if path.is_dir() and (path / "logged.jsonl").exists():
            draws = path / "fresh_draws"
            return _logged(path / "logged.jsonl", draws if draws.is_dir() else fresh_draws, base_policy)
        if path.is_dir() and any(map(_is_native, path.glob("*.jsonl"))):
            return _draws_folder(path)
        return _file(path, fresh_draws, base_policy)
    except UserError as error:
        return Usability(False, (str(error),))


def _file(path: Path, fresh_draws: Path | None, base_policy: str | None) -> Usability:
    name = convert.recognise(path)
    is_native = _is_native(path)
    if name is not None and not (name == "cje-eval" and is_native):
        return Usability(False, (f"a file of the format {name}; convert it: arena-cje convert {name} {path} --to DIR",))
    if path.is_dir():
        return _draws_folder(path)
    rows = [row for _, row in read_rows_with_places(path)] if is_native else []
    policies = {row.get("policy", row.get("target_policy")) for row in rows} - {None}
    if not rows or len(policies) > 1:
        columns = "prompt=COLUMN,response=COLUMN,policy=COLUMN,judge_score=COLUMN"
        return Usability(
            False, (f"a plain table; convert it: arena-cje convert table {path} --columns {columns} --to DIR",)
        )
    if policies and not any(LOGGED_FIELDS & row.keys() for row in rows):
        return Usability(True, (_draws_text(policies.pop(), read_responses(DRAWS, path)),))
    return _logged(path, fresh_draws, base_policy)


def _is_native(path: Path) -> bool:
    """Whether a file is JSONL whose rows have the names of the CJE format."""
    if path.suffix != ".jsonl":
        return False
    rows = [row for _, row in read_rows_with_places(path)]
    fields = {name for row in rows for name in (*row, *(row.get("metadata") or {}))}
    return bool(NATIVE_FIELDS & fields) and not {"target_logps", "total_logprob"} & fields


def _logged(path: Path, fresh_draws: Path | None, base_policy: str | None) -> Usability:
    """The account of logged data and of the fresh draws beside them."""
    responses, base, targets = read_logged(path, base_policy)
    logged, counts = logged_arrays(responses, base, targets, str(path), Reading())
    lines = [
        f"logged data: {counts['n_rows']} of {counts['n_responses']} rows have a judge score, base policy {base}, "
        f"{n_labels(responses)} oracle labels"
    ]
    with_ratios = []
    for k, name in enumerate(targets):
        n_ratios = int(np.sum(~np.isnan(logged.log_ratio[:, k])))
        with_ratios += [name] if n_ratios else []
        lines.append(f"target {name}: log probabilities on {n_ratios} of {counts['n_rows']} rows")
    sources = find_draws(fresh_draws, base, targets) if fresh_draws is not None else {}
    with_draws = []
    for name, source in sources.items():
        if name != base:
            draws = read_draws(source, name)
            group_by_prompt(draws, name, logged.prompt_id.tolist(), str(source))
            lines.append(_draws_text(name, draws))
            with_draws.append(name)
    lacking: dict[str, list[str]] = {}  # estimators by what they lack
    for name in estimators.NAMES:
        lacks = ["log probabilities"] * (estimators.needs_weights(name) and not with_ratios)
        lacks += ["fresh draws"] * (estimators.needs_draws(name) and not with_draws)
        lacking.setdefault(" and ".join(lacks), []).append(name)
    usable = lacking.pop("", [])
    lines.append(f"estimators: {', '.join(usable) or 'none'}")
    lines += [f"also possible with {what}: {', '.join(names)}" for what, names in lacking.items()]
    labelled_prompts = len({response.prompt_id for response in responses if response.oracle_label is not None})
    if not labelled_prompts:
        lines.append(
            "no oracle labels, which calibration needs: label a random sample of the prompts, or add `calibration_data`"
        )
    elif labelled_prompts < MIN_LABELLED_PROMPTS:
        needed = f"on at least {MIN_LABELLED_PROMPTS} prompts, got {labelled_prompts}"
        lines.append(f"calibration needs oracle labels {needed}: label more, or add `calibration_data`")
    return Usability(bool(usable), tuple(lines))


def _draws_folder(path: Path) -> Usability:
    lines = [_draws_text(name, read_draws(file, name)) for name, file in draw_paths(path).items()]
    return Usability(True, tuple(lines))


def _draws_text(name: str, draws: Sequence[Response]) -> str:
    scored = sum(draw.judge_score is not None for draw in draws)
    prompts = len({draw.prompt_id for draw in draws})
    return f"fresh draws of {name}: {scored} of {len(draws)} have a judge score, {prompts} prompts, {n_labels(draws)} labels"
