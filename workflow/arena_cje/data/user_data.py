"""A user's own data: read and checked, with oracle labels masked in every copy of a response.

Labels of logged rows are used in the order of a hash of the prompt id, up to the number that the coverage requests. The
base policy's own fresh draws, and rows of the calibration data, may be logged responses again; a label that is masked in
the logged rows is not used there either.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from arena_cje.data.calibration import read_calibration
from arena_cje.data.coverage import first_labels
from arena_cje.data.draws import find_draws, find_probes, group_by_prompt, read_draws, read_probes, with_probes
from arena_cje.data.logged import check_scored, read_logged
from arena_cje.data.reading import Reading
from arena_cje.data.rows import (
    NO_TEXTS,
    Response,
    checked_rows,
    log_ratios,
    mask_labels,
    n_labels,
    row_counts,
    with_top_level_id,
)
from arena_cje.data.schemas import DRAWS, LOGGED
from arena_cje.data.sources import source_name
from arena_cje.errors import UserError, file_errors
from arena_cje.files import iterate_rows, looked_in, user_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from arena_cje.data.sources import Source
    from arena_cje.files import Row


@dataclass(frozen=True)
class LoggedRows:
    """Logged rows with a judge score, labels masked; read anew whenever they are iterated, so that they take no memory."""

    source: Source
    reading: Reading
    mask: np.ndarray  # (n,) bool, which rows keep their label

    def __iter__(self) -> Iterator[Row]:
        responses = checked_rows(LOGGED, self.source, self.reading)
        scored = (with_top_level_id(response) for response in responses if response.judge_score is not None)
        return mask_labels(scored, self.mask.tolist())


@dataclass(frozen=True)
class DrawRows:
    """Fresh draws of a policy in the order of draw_idx, labels masked, those of probes added; read anew in the same way.

    Where a prompt has several draws, those of one policy are in memory while they are iterated.
    """

    source: Source
    policy: str
    reading: Reading
    mask: np.ndarray  # (m,) bool, which draws keep their label
    probes: Sequence[Response]
    one_each: bool  # whether the order of the source is that of draw_idx, as all draws have the same

    def __iter__(self) -> Iterator[Row]:
        if self.one_each and not self.probes:
            responses: Iterable[Response] = checked_rows(DRAWS, self.source, self.reading)
        else:
            draws = read_draws(self.source, self.policy, reading=self.reading)
            responses = with_probes(draws, self.probes, source_name(self.source))
        return mask_labels(map(with_top_level_id, responses), self.mask.tolist())


class UserData(NamedTuple):
    """Rows to be analysed, with masked labels, and the numbers of rows and labels behind them."""

    logged: Iterable[Row]
    fresh: dict[str, Iterable[Row]]  # by policy
    calibration: list[Row] | None  # None without calibration data
    summary: dict[str, Any]


@file_errors()
def check_user_file(path: str | Path, *, results: Path) -> None:
    """Raise a `UserError` for a file that does not exist, or that lies among the results, which the run replaces."""
    path = user_path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a JSONL file in the CJE format")
    if not path.is_file():
        raise UserError(f"{path}: no such file{looked_in(path)}; name a JSONL file in the CJE format")
    if path.resolve().is_relative_to(results.resolve()):
        raise UserError(
            f"{path}: is among the results of this working directory, which this run would replace; copy it elsewhere, or "
            "choose another --directory"
        )


def policy_names(logged_path: str | Path, base_policy: str) -> tuple[str, ...]:
    """Names of the base policy and the targets of logged data, as its first row with log probabilities has them.

    base_policy: its name where that row does not give it. Empty where no row has log probabilities of targets: the fresh
    draws name the targets then.
    """
    for _, row in iterate_rows(logged_path):
        targets = row.get("target_policy_logprobs")
        if isinstance(targets, dict) and targets:
            return (row.get("base_policy") or base_policy, *targets)
    return ()


def read_user_data(
    logged_path: str | Path,
    fresh_dir: str | Path | None,
    coverage: float,
    seed: int,
    target_labels: float | None = None,
    base_policy: str | None = None,
    *,
    probes: str | Path | Mapping[str, Source] | None = None,
    calibration_data: str | Path | None = None,
    reading: Reading = Reading(),
) -> UserData:
    """Read and check a user's data, keep labels on a share `coverage` of the logged rows, and null the others.

    target_labels: share of a target's fresh draws that keep their label; None is all. Probes always keep theirs. The base
    policy's fresh draws must be the logged responses, and have a label where the logged row keeps one.
    Raises a `UserError` for data that cannot be analysed.
    """
    responses, base, policies = read_logged(logged_path, base_policy, reading=reading, texts=NO_TEXTS)
    for response in responses:
        log_ratios(response, policies)  # refuses what cannot be analysed
    check_scored(responses, source_name(logged_path), reading)
    scored = [response for response in responses if response.judge_score is not None]
    prompts = [response.prompt_id for response in scored]
    labels = first_labels(prompts, seed, coverage, _has_label(scored))
    sources = find_draws(fresh_dir, base, policies) if fresh_dir is not None else {}
    targets = [name for name in sources if name != base]
    probe_sources = find_probes(probes, targets)
    fresh, draw_counts = {}, {}
    for name, source in sources.items():
        probe_rows = read_probes(probe_sources[name], name, reading=reading) if name in probe_sources else []
        texts = frozenset(probe.prompt_id for probe in probe_rows)  # a probe is compared with its draw
        draws = read_draws(source, name, reading=reading, texts=texts)
        if name == base:
            mask, probes_kept = _base_labels(draws, list(compress(scored, labels.mask))), []
        else:
            group_by_prompt(draws, name, prompts, source_name(source))  # refuses draws of other prompts
            with_probes(draws, probe_rows, source_name(source))  # refuses probes of other draws
            mask, probes_kept = _target_labels(draws, probe_rows, seed, target_labels), probe_rows
        draw_counts[name] = _draw_counts(draws, int(mask.sum()), len(probes_kept))
        one_each = len({draw.draw_idx for draw in draws}) == 1
        fresh[name] = DrawRows(source, name, reading, mask, probes_kept, one_each)
    summary = row_counts(responses, scored) | {
        "base_policy": base,
        "target_policies": list(dict.fromkeys([*policies, *targets])),
        "coverage": coverage,
        "n_labels_wanted": labels.requested,
        "n_labels_found": labels.available,
        "n_oracle": int(labels.mask.sum()),
        "fresh_draws": draw_counts,
    }
    calibration = None
    if calibration_data is not None:
        rows, summary["calibration_data"] = read_calibration(calibration_data, responses, base, reading=reading)
        calibration = [with_top_level_id(row) for row in rows]
    logged = LoggedRows(logged_path, reading, labels.mask)
    return UserData(logged, fresh, calibration, summary | reading.summary())


def _base_labels(draws: Sequence[Response], labelled_rows: Sequence[Response]) -> np.ndarray:
    """Which of the base policy's draws keep their label, (m,) bool: those whose logged row has one.

    Raises a `UserError` where the labels of a draw and its logged row differ.
    """
    label_of = {(response.prompt_id, response.draw_idx): response.oracle_label for response in labelled_rows}
    mask = []
    for draw in draws:
        label = label_of.get((draw.prompt_id, draw.draw_idx))
        if label is not None and draw.oracle_label is not None and label != draw.oracle_label:
            raise UserError(
                f"{draw.where}: oracle_label is {draw.oracle_label}, but the logged row of prompt {draw.prompt_id!r} "
                f"has {label}; the base's fresh draws are the logged responses and must have the same labels"
            )
        mask.append(label is not None and draw.oracle_label is not None)
    return np.array(mask, dtype=bool)


def _target_labels(draws: Sequence[Response], probes: Sequence[Response], seed: int, share: float | None) -> np.ndarray:
    """Which of a target's draws keep their label, (m,) bool: a share of them (None is all) and those with a probe."""
    mask = _has_label(draws)
    if share is not None:
        mask = first_labels([draw.prompt_id for draw in draws], seed, share, mask, prompts_first=True).mask
    probe_keys = {(probe.prompt_id, probe.draw_idx) for probe in probes}
    return mask | np.array([(draw.prompt_id, draw.draw_idx) in probe_keys for draw in draws], dtype=bool)


def _draw_counts(draws: Sequence[Response], labels: int, probes: int) -> dict[str, int]:
    return {
        "n_responses": len(draws),
        "n_labels_found": n_labels(draws),
        "n_probes": probes,
        "n_labels": labels,
    }


def _has_label(responses: Sequence[Response]) -> np.ndarray:
    """Which responses have an oracle label, (n,) bool."""
    return np.array([response.oracle_label is not None for response in responses], dtype=bool)
