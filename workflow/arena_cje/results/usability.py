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
from arena_cje.files import read_rows_with_places

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arena_cje.data.rows import Response

LOGGED_FIELDS = {"base_policy", "base_policy_logprob", "target_policy_logprobs"}


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
        if path.is_dir():
            return _draws_folder(path)
        return _file(path, fresh_draws, base_policy)
    except UserError as error:
        return Usability(False, (str(error),))


def _file(path: Path, fresh_draws: Path | None, base_policy: str | None) -> Usability:
    name = convert.recognise(path)
    if name is not None and not (name == "cje-eval" and _is_native(path)):
        return Usability(False, (f"a file of the format {name}; convert it: arena-cje convert {name} {path} --to DIR",))
    if name is None and path.suffix != ".jsonl":
        return Usability(
            False,
            (
                "a table; convert it: arena-cje convert table "
                f"{path} --columns prompt=COLUMN,response=COLUMN,policy=COLUMN,judge_score=COLUMN --to DIR",
            ),
        )
    rows = [row for _, row in read_rows_with_places(path)]
    if not any(LOGGED_FIELDS & row.keys() for row in rows) and any(
        {"policy", "target_policy"} & row.keys() for row in rows
    ):
        return Usability(True, (_draws_text(path.name, read_responses(DRAWS, path)),))
    return _logged(path, fresh_draws, base_policy)


def _is_native(path: Path) -> bool:
    """Whether the rows of a file have the names of the CJE format."""
    try:
        rows = read_rows_with_places(path)
    except UserError:
        return False
    row = rows[0][1] if rows else {}
    fields = row.keys() | (row.get("metadata") or {}).keys()
    return "judge_score" in fields and not {"target_logps", "total_logprob"} & fields


def _logged(path: Path, fresh_draws: Path | None, base_policy: str | None) -> Usability:
    """The account of logged data and of the fresh draws beside them."""
    responses, base, targets = read_logged(path, base_policy)
    logged, counts = logged_arrays(responses, base, targets, str(path), Reading())
    lines = [
        f"logged data: {counts['n_rows']} of {counts['n_responses']} rows have a judge score, base policy {base}, "
        f"{n_labels(responses)} oracle labels"
    ]
    weighted = []
    for k, name in enumerate(targets):
        n_ratios = int(np.sum(~np.isnan(logged.log_ratio[:, k])))
        weighted += [name] if n_ratios else []
        lines.append(f"target {name}: log probabilities on {n_ratios} of {counts['n_rows']} rows")
    sources = find_draws(fresh_draws, base, targets) if fresh_draws is not None else {}
    drawn = []
    for name, source in sources.items():
        if name != base:
            draws = read_draws(source, name)
            group_by_prompt(draws, name, logged.prompt_id.tolist(), str(source))
            lines.append(_draws_text(name, draws))
            drawn.append(name)
    usable, missing = [], []
    for name in estimators.NAMES:
        lacks = ["log probabilities"] * (estimators.needs_weights(name) and not weighted)
        lacks += ["fresh draws"] * (estimators.needs_draws(name) and not drawn)
        (missing if lacks else usable).append(f"{name} ({' and '.join(lacks)})" if lacks else name)
    lines.append(f"estimators: {', '.join(usable) or 'none'}")
    lines += [f"not without more data: {', '.join(missing)}"] if missing else []
    if not n_labels(responses):
        lines.append("no oracle label: values are those of the judge, which nothing corrects")
    return Usability(bool(usable), tuple(lines))


def _draws_folder(path: Path) -> Usability:
    lines = [_draws_text(name, read_draws(file, name)) for name, file in draw_paths(path).items()]
    return Usability(True, tuple(lines))


def _draws_text(name: str, draws: Sequence[Response]) -> str:
    scored = sum(draw.judge_score is not None for draw in draws)
    prompts = len({draw.prompt_id for draw in draws})
    return f"fresh draws of {name}: {scored} of {len(draws)} have a judge score, {prompts} prompts, {n_labels(draws)} labels"
