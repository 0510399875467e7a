"""Fresh draws of the target policies, and probes: files with labels of some of these draws.

A probe is joined to its draw by prompt_id and draw_idx. It must have the draw's score, and its response where both have
one, since a label of another policy's response would be taken for one of this policy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.data.fields import TOLERANCE
from arena_cje.data.reading import Reading
from arena_cje.data.rows import (
    Response,
    arrays,
    check_unique,
    read_pairs,
    read_responses,
    row_counts,
    source_name,
    with_label_of,
)
from arena_cje.data.schemas import DRAWS, PROBES
from arena_cje.errors import UserError, did_you_mean
from arena_cje.estimation.records import Draws

if TYPE_CHECKING:
    from arena_cje.data.rows import Source


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
    responses = read_draws(source, policy, reading=reading)
    probe_rows = read_probes(probes, policy, reading=reading) if probes is not None else []
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
            f"{where}: {policy!r} has no fresh draw for any of the {len(set(prompt_ids))} logged prompts, such as "
            f"{str(prompt_ids[0])!r}; prompts are matched by `prompt_id`"
        )
    return [by_prompt.get(name, []) for name in prompt_ids]


def read_draws(source: Source, policy: str, *, reading: Reading = Reading()) -> list[Response]:
    """The checked fresh draws of a policy, in the order of draw_idx; raises a `UserError` for rows of another policy."""
    responses = read_responses(DRAWS, source, reading=reading)
    _check_policy(responses, policy, "the fresh draws")
    return sorted(responses, key=lambda response: response.draw_idx)


def read_probes(source: Source, policy: str, *, reading: Reading = Reading()) -> list[Response]:
    """The checked probes of a policy, each with a score and a label; raises a `UserError` for one that lacks either."""
    probes = read_pairs(PROBES, source, reading=reading.without_covariates())
    _check_policy(probes, policy, "the probes")
    places: dict[tuple[str, int], str] = {}
    for probe in probes:
        for name in ("judge_score", "oracle_label"):
            if getattr(probe, name) is None:
                field = reading.score_field if name == "judge_score" else name
                raise UserError(f"{probe.where}: {field} is missing or null; a probe is a judged and labelled draw")
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
                f"{probe.where}: {where} has no draw {probe.draw_idx} of prompt {probe.prompt_id!r}; "
                "a probe labels a draw that is there, by its prompt_id and draw_idx (0 when absent)"
            )
        _check_same_draw(probe, draws[k])
        labelled[k] = replace(draws[k], row=with_label_of(draws[k].row, probe.row), oracle_label=probe.oracle_label)
    return labelled


def draw_paths(folder: Path, known: Collection[str] = (), what: str = "fresh draws") -> dict[str, Path]:
    """The files of a folder by policy: POLICY_responses.jsonl, or else POLICY.jsonl.

    known: policies, some of which may have a name that itself ends in `_responses`.
    what: name of the files' content in errors.
    """
    if not folder.is_dir():
        why = "is a file" if folder.exists() else f"no such folder in {Path.cwd()}"
        raise UserError(f"{folder}: {why}; expected a folder of {what}, a file for each policy")
    paths: dict[str, Path] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if invalid := sorted(set(path.stem) & set("{}<>")):
            raise UserError(
                f"{path}: the name of a policy may not have {' or '.join(invalid)} in it; rename the file, and the policy "
                "in the data"
            )
        name = path.stem if path.stem in known else path.stem.removesuffix("_responses")
        if name not in paths or path.stem == f"{name}_responses":
            paths[name] = path
    if not paths:
        raise UserError(f"{folder}: no {what} in it; expected files POLICY_responses.jsonl or POLICY.jsonl")
    return paths


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
                f"{where}: fresh draws of {name!r}, which is not a policy of the logged data{hint}; rename one of the two, or "
                f"give {name!r} another name if it is a policy of its own"
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


def _sources(files: str | Path | Mapping[str, Source], known: Collection[str], what: str) -> tuple[dict, str]:
    """Sources by policy, and the name of their place for errors."""
    if isinstance(files, Mapping):
        return dict(files), what.replace(" ", "_")
    return draw_paths(Path(files), known, what), str(files)


def _check_policy(responses: Sequence[Response], policy: str, what: str) -> None:
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
                f"{'none' if expected is None else format(expected, 'g')}; a probe labels the very draw that the policy gave"
            )
    texts = (probe.row.get("response"), draw.row.get("response"))
    if None not in texts and texts[0] != texts[1]:
        raise UserError(
            f"{probe.where}: response is {texts[0]!r:.60}, but its draw ({draw.where}) is {texts[1]!r:.60}; "
            "a probe labels the very draw that the policy gave"
        )
