"""Whether files can be analysed, by which estimators, and if not, why: `arena-cje validate`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje import estimators
from arena_cje.data import convert
from arena_cje.data.calibration import labels_on_draws_alone, read_calibration
from arena_cje.data.draws import (
    draw_paths,
    find_draws,
    find_probes,
    group_by_prompt,
    read_draws,
    read_probes,
    with_probes,
)
from arena_cje.data.logged import logged_arrays, read_logged, similar_field
from arena_cje.data.reading import Reading
from arena_cje.data.rows import n_labels, read_responses
from arena_cje.data.schemas import DRAWS
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.errors import UserError
from arena_cje.estimation.calibration import MIN_LABELLED_PROMPTS
from arena_cje.files import read_rows_with_places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from arena_cje.data.rows import Response
    from arena_cje.estimation.records import Logged

LOGGED_FIELDS = {"base_policy", "base_policy_logprob", "target_policy_logprobs"}
NATIVE_FIELDS = {"judge_score", "judge_scores", "judge_distribution", "oracle_label", *LOGGED_FIELDS}


@dataclass(frozen=True)
class Usability:
    """The account of one file or folder."""

    usable: bool
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Beside:
    """What is beside logged data: files and folders as `analyze` takes them."""

    fresh_draws: Path | None = None
    base_policy: str | None = None
    probes: Path | None = None
    calibration_data: Path | None = None


def usability(path: Path, fresh_draws: Path | None = None, **more: Any) -> Usability:
    """Whether a file or a folder can be analysed.

    path: logged data, a file or folder of fresh draws, a folder that `arena-cje convert` wrote, or a file of another tool;
    fresh_draws: the folder of the targets' fresh draws beside logged data; more: the other fields of `Beside`.
    """
    beside = Beside(fresh_draws, **more)
    try:
        if path.is_dir() and (path / "logged.jsonl").exists():
            draws = path / "fresh_draws"
            beside = replace(beside, fresh_draws=draws) if draws.is_dir() else beside
            return _logged(path / "logged.jsonl", beside)
        if path.is_dir() and any(map(_is_native, path.glob("*.jsonl"))):
            return _draws_folder(path)
        return _file(path, beside)
    except UserError as error:
        return Usability(False, (str(error),))


def _file(path: Path, beside: Beside) -> Usability:
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
    return _logged(path, beside)


def _is_native(path: Path) -> bool:
    """Whether a file is JSONL whose rows have the names of the CJE format."""
    if path.suffix != ".jsonl":
        return False
    rows = [row for _, row in read_rows_with_places(path)]
    fields = {name for row in rows for name in (*row, *(row.get("metadata") or {}))}
    return bool(NATIVE_FIELDS & fields) and not {"target_logps", "total_logprob"} & fields


def _logged(path: Path, beside: Beside) -> Usability:
    """The account of logged data and of what is beside them."""
    responses, base, targets = read_logged(path, beside.base_policy)
    logged, counts = logged_arrays(responses, base, targets, str(path), Reading())
    n_unscored = sum(row.judge_score is None and row.oracle_label is not None for row in responses)
    lines = [
        f"logged data: {counts['n_rows']} of {counts['n_responses']} rows have a judge score, base policy {base}, "
        f"{int(logged.labelled.sum())} usable oracle labels"
        f"{f' ({n_unscored} more are on rows without a judge score, and cannot be used)' if n_unscored else ''}"
    ]
    draws = _target_draws(beside, base, targets, logged.prompt_id.tolist())
    inputs: dict[str, tuple[bool, bool]] = {}  # of each target: whether it has log probabilities, and draws
    for name in dict.fromkeys((*targets, *draws)):
        n_ratios = int(np.sum(~np.isnan(logged.log_ratio[:, targets.index(name)]))) if name in targets else 0
        lines.append(f"target {name}: log probabilities on {n_ratios} of {counts['n_rows']} rows")
        if name in draws:
            lines.append(_draws_text(name, draws[name]) + _lacking_text(draws[name], logged.prompt_id.tolist()))
        elif beside.fresh_draws is not None:
            lines.append(f"fresh draws of {name}: none")
        inputs[name] = n_ratios > 0, any(draw.judge_score is not None for draw in draws.get(name, ()))
    is_labelled, label_lines = _labels(
        path, responses, logged, beside, [name for name in draws if n_labels(draws[name])]
    )
    is_usable, estimator_lines = _estimators(inputs, is_labelled=is_labelled)
    return Usability(is_usable, (*lines, *estimator_lines, *label_lines))


def _target_draws(
    beside: Beside, base: str, targets: Sequence[str], prompt_ids: Sequence[str]
) -> dict[str, list[Response]]:
    """The fresh draws of each target that has any, with the labels of their probes."""
    sources = find_draws(beside.fresh_draws, base, targets) if beside.fresh_draws is not None else {}
    sources.pop(base, None)
    probes = find_probes(beside.probes, tuple(sources))
    draws = {}
    for name, source in sources.items():
        rows = read_draws(source, name)
        if name in probes:
            rows = with_probes(rows, read_probes(probes[name], name), str(source))
        group_by_prompt(rows, name, prompt_ids, str(source))
        draws[name] = rows
    return draws


def _lacking_text(draws: Sequence[Response], prompt_ids: Sequence[str]) -> str:
    """How many logged prompts lack a draw that can be used."""
    prompts = set(prompt_ids)
    lacking = len(prompts - {draw.prompt_id for draw in draws if draw.judge_score is not None})
    return f"; {lacking} of {len(prompts)} logged prompts lack a draw with a judge score" if lacking else ""


def _estimators(inputs: Mapping[str, tuple[bool, bool]], *, is_labelled: bool) -> tuple[bool, list[str]]:
    """Whether an estimator can analyse a target, and the estimators of the targets, those with the same inputs together."""
    if not is_labelled:
        return False, ["estimators: none"]
    groups: dict[tuple[bool, bool], list[str]] = {}
    for name, has in inputs.items():
        groups.setdefault(has, []).append(name)
    lines, is_usable = [], False
    for (has_ratios, has_draws), names in (groups or {(False, False): []}).items():
        whose = f" for {', '.join(names)}" if len(groups) > 1 else ""
        lacking: dict[str, list[str]] = {}  # estimators by what they lack
        for name in estimators.NAMES:
            lacks = ["log probabilities"] * (estimators.needs_weights(name) and not has_ratios)
            lacks += ["fresh draws"] * (estimators.needs_draws(name) and not has_draws)
            lacking.setdefault(" and ".join(lacks), []).append(name)
        usable = lacking.pop("", [])
        is_usable |= bool(usable)
        lines.append(f"estimators{whose}: {', '.join(usable) or 'none'}")
        lines += [f"also possible{whose} with {what}: {', '.join(others)}" for what, others in lacking.items()]
    return is_usable, lines


def _labels(
    path: Path, responses: Sequence[Response], logged: Logged, beside: Beside, with_labels: Sequence[str]
) -> tuple[bool, list[str]]:
    """Whether the labels are enough for a calibration, and sentences about their number.

    with_labels: policies whose fresh draws have labels.
    """
    labelled, n = set(logged.question[logged.labelled].tolist()), int(logged.labelled.sum())
    lines = []
    if beside.calibration_data is not None:
        rows, _ = read_calibration(beside.calibration_data, responses, logged.base_policy)
        lines.append(f"calibration data: {len(rows)} usable oracle labels")
        labelled |= {row.prompt_id for row in rows}
        n += len(rows)
    if len(labelled) < MIN_LABELLED_PROMPTS:
        if not labelled and with_labels:
            return False, [*lines, labels_on_draws_alone(with_labels)]
        lines.append(
            f"calibration needs usable oracle labels on at least {MIN_LABELLED_PROMPTS} prompts of {path}, got "
            f"{len(labelled)}{'' if labelled else similar_field('oracle_label', responses)}: "
            "label a random sample of its rows, or give other labelled responses as `calibration_data`"
        )
        return False, lines
    if n < (least := Thresholds().labels_refuse):
        lines.append(
            f"{n} oracle labels: estimates are computed, but published only from {least} labels on; label more"
        )
    return True, lines


def _draws_folder(path: Path) -> Usability:
    lines = [_draws_text(name, read_draws(file, name)) for name, file in draw_paths(path).items()]
    return Usability(True, tuple(lines))


def _draws_text(name: str, draws: Sequence[Response]) -> str:
    scored = sum(draw.judge_score is not None for draw in draws)
    prompts = len({draw.prompt_id for draw in draws})
    return f"fresh draws of {name}: {scored} of {len(draws)} have a judge score, {prompts} prompts, {n_labels(draws)} labels"
