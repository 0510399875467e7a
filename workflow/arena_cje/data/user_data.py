"""Data brought along: read and checked, with labels masked in every copy of a response.

Labels of logged rows are kept in the order of a hash of the prompt id, until there are as many as the coverage asks
for. The base's own fresh draws, and rows of the calibration data, may be logged responses again: a label that is masked
in one place must not come back from another.
"""

from __future__ import annotations

from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from arena_cje.data.calibration import read_calibration
from arena_cje.data.coverage import first_come
from arena_cje.data.draws import find_draws, find_probes, of_prompts, read_draws, read_probes, with_probes
from arena_cje.data.logged import read_logged
from arena_cje.data.reading import Reading
from arena_cje.data.rows import Response, counts, identified, log_ratios, mask, n_labels, named
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.data.rows import Source
    from arena_cje.files import Row


class Brought(NamedTuple):
    """Rows to be analysed, and what was read, dropped and kept."""

    logged: list[Row]
    fresh: dict[str, list[Row]]  # by policy
    calibration: list[Row] | None  # None where none were given
    summary: dict[str, Any]


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


def bring(
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
) -> Brought:
    """Data brought along, with labels on `coverage` of its logged rows.

    The base's own fresh draws are the logged responses again: they carry a label where the logged row kept the same
    one. The targets keep the labels of all their draws, or of a share `target_labels`; those of probes are always kept.
    """
    responses, base, policies = read_logged(logged_path, base_policy, reading=reading)
    for response in responses:
        log_ratios(response, policies)
    scored = [response for response in responses if response.judge_score is not None]
    kept = first_come([response.prompt_id for response in scored], seed, coverage, _labelled(scored))
    sources = find_draws(fresh_dir, base, policies) if fresh_dir is not None else {}
    targets = [name for name in sources if name != base]
    probed = find_probes(probes, targets)
    fresh, drawn = {}, {}
    for name, source in sources.items():
        if name == base:
            draws = read_draws(source, name, reading=reading)
            keep = _same_labels(draws, list(compress(scored, kept.mask)))
            fresh[name] = mask([identified(draw) for draw in draws], keep)
            drawn[name] = _drawn(draws, sum(keep), 0)
        else:
            draws = read_draws(source, name, reading=reading)
            of_prompts(
                draws, name, [response.prompt_id for response in scored], named(source)
            )  # refuses a missing draw
            found = read_probes(probed[name], name, reading=reading) if name in probed else []
            fresh[name], drawn[name] = _target(draws, found, named(source), seed, target_labels)
    summary = counts(responses, scored) | {
        "base_policy": base,
        "target_policies": list(policies or targets),
        "coverage": coverage,
        "n_labels_wanted": kept.wanted,
        "n_labels_found": kept.found,
        "n_oracle": int(kept.mask.sum()),
        "fresh_draws": drawn,
    }
    beside = None
    if calibration_data is not None:
        rows, summary["calibration_data"] = read_calibration(calibration_data, responses, base, reading=reading)
        beside = [identified(row) for row in rows]
    summary |= reading.summary()
    return Brought(mask([identified(response) for response in scored], kept.mask), fresh, beside, summary)


def _target(
    draws: Sequence[Response], probes: Sequence[Response], where: str, seed: int, share: float | None
) -> tuple[list[Row], dict[str, int]]:
    """Draws of a target with labels on a share of them (all that exist, for None) and wherever they were probed."""
    labelled = _labelled(draws)
    keep = labelled if share is None else first_come([draw.prompt_id for draw in draws], seed, share, labelled).mask
    probed = {(probe.prompt_id, probe.draw_idx) for probe in probes}
    keep = [kept or (draw.prompt_id, draw.draw_idx) in probed for draw, kept in zip(draws, keep, strict=True)]
    rows = [identified(draw) for draw in with_probes(draws, probes, where)]
    return mask(rows, keep), _drawn(draws, sum(keep), len(probes))


def _drawn(draws: Sequence[Response], kept: int, probes: int) -> dict[str, int]:
    return {
        "n_responses": len(draws),
        "n_labels_found": n_labels(draws),
        "n_probes": probes,
        "n_labels": int(kept),
    }


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
