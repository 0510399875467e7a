"""Fresh draws of the target policies, and probes: files with labels of some of these draws.

A probe is joined to its draw by prompt_id and draw_idx. It must have the draw's score, and its response where both have
one, since a label of another policy's response would be taken for one of this policy.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from sys import getfilesystemencoding
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.data.fields import TOLERANCE
from arena_cje.data.names import policy_of, policy_spelled, spells
from arena_cje.data.reading import Reading
from arena_cje.data.rows import (
    ALL_TEXTS,
    Response,
    arrays,
    check_label_probabilities,
    check_unique,
    read_pairs,
    read_responses,
    row_counts,
    with_label_of,
)
from arena_cje.data.schemas import DRAWS, PROBES
from arena_cje.data.sources import source_name
from arena_cje.errors import HALF, UserError, did_you_mean, display_form, file_errors
from arena_cje.estimation.records import Draws
from arena_cje.files import looked_in, user_path

if TYPE_CHECKING:
    from arena_cje.data.sources import Source

ENDING = "_responses"  # of the names of files
DEEPEST = 3  # sub folders, of which the names of policies are made where the files name them


def load_draws(
    source: Source,
    policy: str,
    prompt_ids: Sequence[str],
    *,
    reading: Reading = Reading(),
    probes: Source | None = None,
) -> tuple[Draws, dict[str, Any]]:
    """The fresh draws of a policy as arrays, and the numbers of rows that were read, used and dropped.

    prompt_ids: prompts of the n logged rows; row i of the arrays has the draws of prompt i, NaN where a draw has no score.
    probes: labels of some of the draws.
    Raises a `UserError` where no prompt has a draw, and for a probe that does not match its draw.
    """
    probe_rows = read_probes(probes, policy, reading=reading) if probes is not None else []
    texts = frozenset(probe.prompt_id for probe in probe_rows)  # a probe is compared with its draw
    responses = read_draws(source, policy, reading=reading, texts=texts)
    responses = with_probes(responses, probe_rows, source_name(source))
    groups = group_by_prompt(responses, policy, prompt_ids, source_name(source))
    width = max(map(len, groups))
    grid: list[Response | None] = []
    for draws in groups:
        grid += [*draws, *[None] * (width - len(draws))]
    logged_prompts = set(prompt_ids)
    summary = row_counts(responses, [response for response in responses if response.judge_score is not None])
    summary["prompts_without_draws"] = len(set(prompt_ids) - {response.prompt_id for response in responses})
    summary["not_logged"] = sum(response.prompt_id not in logged_prompts for response in responses)
    summary |= {"n_probes": len(probe_rows)} if probes is not None else {}
    return Draws(policy, **arrays(grid, (len(prompt_ids), width), len(reading.covariates))), summary


def group_by_prompt(
    responses: Sequence[Response], policy: str, prompt_ids: Sequence[str], where: str
) -> list[list[Response]]:
    """The fresh draws of a policy to each of the prompts.

    where: name of the draws in errors. Raises a `UserError` where no prompt has a draw.
    """
    by_prompt: dict[str, list[Response]] = {}
    for response in responses:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    if by_prompt.keys().isdisjoint(prompt_ids):
        raise UserError(
            f"{where}: {policy!r} has no fresh draw for any of the {len(set(prompt_ids))} logged prompts with a judge score"
            f"{''.join(f', such as {display_form(str(name))}' for name in prompt_ids[:1])}; prompts are matched by `prompt_id`"
        )
    return [by_prompt.get(name, []) for name in prompt_ids]


def read_draws(
    source: Source, policy: str, *, reading: Reading = Reading(), texts: Container[str] | None = ALL_TEXTS
) -> list[Response]:
    """The checked fresh draws of a policy, in the order of draw_idx; raises a `UserError` for rows of another policy.

    texts: as in `read_pairs`.
    """
    responses = read_responses(DRAWS, source, reading=reading, texts=texts)
    check_policy(responses, policy, "the fresh draws")
    return sorted(responses, key=lambda response: response.draw_idx)


def read_probes(source: Source, policy: str, *, reading: Reading = Reading()) -> list[Response]:
    """The checked probes of a policy, each with a score and a label; raises a `UserError` for one that lacks either."""
    probes = read_pairs(PROBES, source, reading=reading.without_covariates())
    check_policy(probes, policy, "the probes")
    places: dict[tuple[str, int], str] = {}
    for probe in probes:
        for name in ("judge_score", "oracle_label"):
            if getattr(probe, name) is None:
                field = reading.score_field if name == "judge_score" else name
                raise UserError(
                    f"{probe.where}: {field} is missing or null; a probe needs both a judge score and a label"
                )
        check_unique(probe, places)
    return probes


def with_probes(draws: Sequence[Response], probes: Sequence[Response], where: str) -> list[Response]:
    """The draws, with the labels of their probes.

    where: name of the draws in errors. Raises a `UserError` for a probe without a draw, or one that differs from it.
    """
    positions = {(draw.prompt_id, draw.draw_idx): k for k, draw in enumerate(draws)}
    labelled = list(draws)
    for probe in probes:
        k = positions.get((probe.prompt_id, probe.draw_idx))
        if k is None:
            raise UserError(
                f"{probe.where}: {where} has no draw {probe.draw_idx} of prompt {probe.prompt_id!r}; a probe labels an "
                "existing draw, by its prompt_id and draw_idx (0 when absent)"
            )
        _check_same_draw(probe, draws[k])
        labelled[k] = replace(
            draws[k],
            row=with_label_of(draws[k].row, probe.row),
            oracle_label=probe.oracle_label,
            label_probability=probe.label_probability,
        )
    check_label_probabilities(labelled)
    return labelled


@file_errors()
def draw_paths(folder: Path, policies: Collection[str] = (), what: str = "fresh draws") -> dict[str, Path]:
    """The files of a folder by policy: POLICY_responses.jsonl, or else POLICY.jsonl.

    policies: names by which a file is of a policy of another spelling too; a file of a sub folder that is of none of them
    is left out. Without them the files name the policies.
    what: name of the files' content in errors.
    """
    folder = user_path(folder)
    paths: dict[str, Path] = {}
    deepest = max((name.count("/") for name in policies), default=DEEPEST)
    for path in _files(folder, what, deepest):
        name = path.relative_to(folder).as_posix().removesuffix(".jsonl")
        policy = _policy_of_file(name, path, policies)
        if policy is None:
            continue
        other = paths.setdefault(policy, path)
        if _without_ending(other) != _without_ending(path):
            raise UserError(f"{path}: belongs to policy {policy!r}, and so does {other}; keep one of the two")
        if path.stem.endswith(ENDING):
            paths[policy] = path
    if not paths:
        raise UserError(f"{folder}: no {what} in it; expected files POLICY_responses.jsonl or POLICY.jsonl")
    return paths


def _files(folder: Path, what: str, deepest: int) -> list[Path]:
    """The JSONL files of a folder and of its sub folders down to a level, but for hidden ones."""
    with file_errors(folder):
        if not folder.is_dir():
            why = "is a file" if folder.exists() else f"no such folder{looked_in(folder)}"
            raise UserError(f"{folder}: {why}; expected a folder of {what}, one file per policy")
        paths = sorted(path for level in range(deepest + 1) for path in folder.glob("*/" * level + "*.jsonl"))
    for path in paths:
        if HALF.search(path.name):
            raise UserError(
                f"{path}: the name of this file is not valid in the encoding of this machine ({getfilesystemencoding()}); "
                "set PYTHONUTF8=1, or rename the file"
            )
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _without_ending(path: Path) -> Path:
    return path.with_name(path.stem.removesuffix(ENDING))


def _policy_of_file(name: str, path: Path, policies: Collection[str]) -> str | None:
    """The policy of a file by its name, None where it is of no known policy and lies in a sub folder.

    A policy may have a name that itself ends as the names of files do.
    """
    short = name.removesuffix(ENDING)
    if policies:
        for spelling in (name, short):
            if (policy := policy_spelled(spelling, policies, path)) is not None:
                return policy
        return None if "/" in name else policy_of(short)
    own = _policy_of_first_row(path)
    return own if own is not None and (spells(name, own) or spells(short, own)) else policy_of(short)


def _policy_of_first_row(path: Path) -> str | None:
    """The policy that the first row of a file names, None where it names none."""
    try:
        with path.open("rb") as lines:
            row = orjson.loads(next(lines))
    except (OSError, StopIteration, ValueError):  # the reader of the rows raises the error about the file
        return None
    names = [row[field] for field in ("policy", "target_policy") if field in row] if isinstance(row, dict) else []
    return names[0] if names and isinstance(names[0], str) else None


def find_draws(fresh_draws: str | Path | Mapping[str, Source], base: str, policies: Sequence[str]) -> dict[str, Source]:
    """The source of each policy's fresh draws: the base policy's first where there are any, then the targets'.

    fresh_draws: a folder, or sources by policy; policies: the targets that have log probabilities in the logged data, in
    declared order. A target may have draws, log probabilities, or both.
    Raises a `UserError` for draws whose policy is likely a misspelt target.
    """
    sources, where = _sources(fresh_draws, (base, *policies), "fresh draws")
    others = sorted(name for name in sources if name not in (base, *policies))
    without_draws = [name for name in policies if name not in sources]
    for name in others:
        hint = did_you_mean(name, without_draws)
        if hint:
            raise UserError(
                f"{where}: fresh draws of {name!r}, which is not a policy of the logged data{hint}; rename one of the two, "
                f"or give {name!r} a clearly different name if it is another policy"
            )
    return {name: sources[name] for name in (base, *policies, *others) if name in sources}


def find_probes(probes: str | Path | Mapping[str, Source] | None, policies: Sequence[str]) -> dict[str, Source]:
    """The source of the probes of each target that has any, in the order of the targets; empty for None.

    Raises a `UserError` for probes of a policy that has no fresh draws as a target.
    """
    if probes is None:
        return {}
    sources, where = _sources(probes, policies, "probes")
    for name in sources:
        if name not in policies:
            raise UserError(
                f"{where}: probes of {name!r}, which has no fresh draws as a target policy{did_you_mean(name, policies)}; "
                f"known: {', '.join(policies) or 'none'} (labels of the base policy belong in the logged data)"
            )
    return {name: sources[name] for name in policies if name in sources}


def _sources(files: str | Path | Mapping[str, Source], policies: Collection[str], what: str) -> tuple[dict, str]:
    """Sources by policy, and the name of their place for errors."""
    if isinstance(files, Mapping):
        if wrong := [name for name in files if not isinstance(name, str)]:
            raise UserError(
                f"{what.replace(' ', '_')} belong to the policy {display_form(wrong[0])}, expected a name that is text"
            )
        return dict(files), what.replace(" ", "_")
    if not isinstance(files, str | PathLike):
        raise UserError(
            f"{what.replace(' ', '_')} is of type {type(files).__name__}, expected a folder with one file per policy, or a "
            f"mapping {{policy: rows}}"
        )
    return draw_paths(Path(files), policies, what), str(files)


def check_policy(responses: Sequence[Response], policy: str, what: str) -> None:
    """Raise a `UserError` for a row that names another policy; what: name of the rows in errors."""
    for response in responses:
        for field in ("policy", "target_policy"):
            name = response.row.get(field)
            if name is not None and name != policy:
                raise UserError(f"{response.where}: {field} is {name!r} among {what} of {policy!r}")


def _check_same_draw(probe: Response, draw: Response) -> None:
    """Raise a `UserError` unless a probe has the score and text of its draw, and the same label if the draw has one."""
    for name in ("judge_score", "oracle_label"):
        value, expected = getattr(probe, name), getattr(draw, name)
        if expected is None and name == "oracle_label":
            continue
        if expected is None or abs(value - expected) > TOLERANCE:
            raise UserError(
                f"{probe.where}: {name} is {value:g}, but its draw ({draw.where}) has "
                f"{'none' if expected is None else format(expected, 'g')}; a probe must repeat the draw that it labels"
            )
    texts = (probe.row.get("response"), draw.row.get("response"))
    if None not in texts and texts[0] != texts[1]:
        raise UserError(
            f"{probe.where}: response is {texts[0]!r:.60}, but its draw ({draw.where}) is {texts[1]!r:.60}; "
            "a probe must repeat the draw that it labels"
        )
