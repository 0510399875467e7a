"""Shards of a table as one file, and grades beside the responses that they are of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje import files
from arena_cje.errors import UserError, file_errors
from arena_cje.stages.seals import MEND

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import polars as pl

    from arena_cje.files import Row


def join(shards: Iterable[str | Path], path: str | Path) -> None:
    """Write the lines of some shards as one file; raises a `UserError` for a shard whose last line is cut."""

    def write(handle: Any) -> None:
        for shard in map(Path, shards):
            with file_errors(shard), shard.open("rb") as file:
                shutil.copyfileobj(file, handle)
                if file.tell() and (file.seek(-1, 2), file.read())[1] != b"\n":
                    raise UserError(f"{shard}: is damaged: its last line is cut; {MEND}")

    files.replace(path, write)


def check_complete(responses: Sequence[Row], grades: Mapping[str, Sequence[Row]], paths: Mapping[str, str]) -> None:
    """Raise a `UserError` where a response has no row among the grades of a judge.

    grades, paths: by stage. An oracle labels some of the responses; a judge reads them all.
    """
    for stage, rows in grades.items():
        if stage != "oracle":
            graded = {(row["prompt_id"], row["draw_idx"]) for row in rows}
            missing = [row for row in responses if (row["prompt_id"], row["draw_idx"]) not in graded]
            _check_none(missing, responses, paths[stage], "grade")


def check_scored(responses: Sequence[Row], logprobs: Mapping[str, pl.DataFrame], paths: Mapping[str, str]) -> None:
    """Raise a `UserError` where a response has no row among the log probabilities of a policy; all by policy."""
    for policy, frame in logprobs.items():
        scored = set(frame["prompt_id"])
        missing = [row for row in responses if row["prompt_id"] not in scored]
        _check_none(missing, responses, paths[policy], "log probability")


def _check_none(missing: Sequence[Row], responses: Sequence[Row], path: str, what: str) -> None:
    if missing:
        first = f"prompt {missing[0]['prompt_id']!r}, draw {missing[0]['draw_idx']}"
        raise UserError(
            f"{path}: lacks the {what} of {len(missing)} of {len(responses)} responses (for example {first}); {MEND}"
        )
