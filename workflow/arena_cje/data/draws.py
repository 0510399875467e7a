"""Fresh draws of the target policies, and probes: labels of some of them that stand in files of their own.

A probe is joined to its draw by prompt_id and draw_idx, and must tell the same score (and response, where both have
one): labels of other responses would be taken for those of this policy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.data.fields import SAME
from arena_cje.data.reading import Reading
from arena_cje.data.rows import Response, arrays, counts, named, read_pairs, read_responses, refuse_twice, relabelled
from arena_cje.data.schemas import DRAWS, PROBES
from arena_cje.errors import UserError, nearest
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
    """The fresh draws of a policy, row i holding those of prompt i, and how many were read and left aside.

    A draw without a judge score stays NaN. A prompt without a line of its own is refused: leaving it out would change
    the population of prompts without a word.
    """
    responses = read_draws(source, policy, reading=reading)
    found = read_probes(probes, policy, reading=reading) if probes is not None else []
    responses = with_probes(responses, found, named(source))
    drawn = of_prompts(responses, policy, prompt_ids, named(source))
    width = max(map(len, drawn))
    grid = [draw for draws in drawn for draw in _padded(draws, width)]
    wanted = set(prompt_ids)
    summary = counts(responses, [response for response in responses if response.judge_score is not None])
    summary["not_logged"] = sum(response.prompt_id not in wanted for response in responses)
    summary |= {"n_probes": len(found)} if probes is not None else {}
    return Draws(policy, **arrays(grid, (len(prompt_ids), width), len(reading.covariates))), summary


def of_prompts(
    responses: Sequence[Response], policy: str, prompt_ids: Sequence[str], where: str
) -> list[list[Response]]:
    """The fresh draws of a policy to each prompt; a prompt without a line of its own is refused."""
    of_prompt: dict[str, list[Response]] = {}
    for response in responses:
        of_prompt.setdefault(response.prompt_id, []).append(response)
    missing = [str(name) for name in dict.fromkeys(prompt_ids) if name not in of_prompt]
    if missing:
        raise UserError(
            f"{where}: {policy!r} has no fresh draw for {len(missing)} of the logged prompts, "
            f"first {missing[0]!r}; draw and judge a response to each, or take these prompts out of the logged data"
        )
    return [of_prompt[name] for name in prompt_ids]


def read_draws(source: Source, policy: str, *, reading: Reading = Reading()) -> list[Response]:
    """The checked fresh draws of a policy, those of a prompt in the order of draw_idx."""
    responses = read_responses(DRAWS, source, reading=reading)
    _refuse_others(responses, policy, "the fresh draws")
    return sorted(responses, key=lambda response: response.draw_idx)


def read_probes(source: Source, policy: str, *, reading: Reading = Reading()) -> list[Response]:
    """The checked probes of a policy, each with a score and a label."""
    probes = read_pairs(PROBES, source, reading=reading.without_covariates())
    _refuse_others(probes, policy, "the probes")
    seen: dict[tuple[str, int], str] = {}
    for probe in probes:
        for name in ("judge_score", "oracle_label"):
            if getattr(probe, name) is None:
                field = reading.score_field if name == "judge_score" else name
                raise UserError(f"{probe.where}: {field} is missing or null; a probe is a judged and labelled draw")
        refuse_twice(probe, seen)
    return probes


def with_probes(draws: Sequence[Response], probes: Sequence[Response], where: str) -> list[Response]:
    """The draws, those that were probed with their labels; a probe that does not fit its draw is refused."""
    index = {(draw.prompt_id, draw.draw_idx): k for k, draw in enumerate(draws)}
    labelled = list(draws)
    for probe in probes:
        k = index.get((probe.prompt_id, probe.draw_idx))
        if k is None:
            raise UserError(
                f"{probe.where}: {where} has no draw {probe.draw_idx} of prompt {probe.prompt_id!r}; "
                "a probe labels a draw that is there, by its prompt_id and draw_idx (0 when absent)"
            )
        _refuse_misfit(probe, draws[k])
        row = relabelled(draws[k].row, probe.row)
        labelled[k] = replace(draws[k], row=row, oracle_label=probe.oracle_label)
    return labelled


def draw_paths(folder: Path, known: Collection[str] = (), what: str = "fresh draws") -> dict[str, Path]:
    """Files of fresh draws by policy; `known` policies may have a name that itself ends in `_responses`."""
    if not folder.is_dir():
        why = "is a file" if folder.exists() else f"no such folder in {Path.cwd()}"
        raise UserError(f"{folder}: {why}; expected a folder of {what}, a file for each policy")
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if odd := sorted(set(path.stem) & set("{}<>")):
            raise UserError(
                f"{path}: the name of a policy may not hold {' or '.join(odd)}; rename the file, and the policy in the data"
            )
        short = path.stem.removesuffix("_responses")
        name = path.stem if path.stem in known else short
        if name not in found or path.stem == f"{name}_responses":
            found[name] = path
    if not found:
        raise UserError(f"{folder}: no {what} in it; expected files POLICY_responses.jsonl or POLICY.jsonl")
    return found


def find_draws(fresh_draws: str | Path | Mapping[str, Source], base: str, policies: Sequence[str]) -> dict[str, Source]:
    """Where the fresh draws of each target lie, the base's among them when they are there.

    In a directory `{policy}_responses.jsonl` is preferred to `{policy}.jsonl`.
    """
    found, where = _found(fresh_draws, (base, *policies), "fresh draws")
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


def find_probes(probes: str | Path | Mapping[str, Source] | None, policies: Sequence[str]) -> dict[str, Source]:
    """Where the probes of each target lie that has some, in the order of the targets; nowhere for None."""
    if probes is None:
        return {}
    found, where = _found(probes, policies, "probes")
    for name in found:
        if name not in policies:
            raise UserError(
                f"{where}: probes of {name!r}, which has no fresh draws as a target policy{nearest(name, policies)}; "
                f"known: {', '.join(policies) or 'none'} (labels of the base policy stand in the logged data)"
            )
    return {name: found[name] for name in policies if name in found}


def _found(given: str | Path | Mapping[str, Source], known: Collection[str], what: str) -> tuple[dict, str]:
    """Sources by policy, and what to call the place they came from."""
    if isinstance(given, Mapping):
        return dict(given), what.replace(" ", "_")
    return draw_paths(Path(given), known, what), str(given)


def _padded(draws: list[Response], width: int) -> list[Response | None]:
    return [*draws, *[None] * (width - len(draws))]


def _refuse_others(responses: Sequence[Response], policy: str, what: str) -> None:
    for response in responses:
        for field in ("policy", "target_policy"):
            name = response.row.get(field)
            if name is not None and name != policy:
                raise UserError(f"{response.where}: {field} is {name!r} among {what} of {policy!r}")


def _refuse_misfit(probe: Response, draw: Response) -> None:
    """A probe says what its draw says, and a label at most in addition."""
    for name in ("judge_score", "oracle_label"):
        mine, its = getattr(probe, name), getattr(draw, name)
        unlabelled = name == "oracle_label" and its is None
        if not unlabelled and (its is None or abs(mine - its) > SAME):
            raise UserError(
                f"{probe.where}: {name} is {mine:g}, but its draw ({draw.where}) has "
                f"{'none' if its is None else format(its, 'g')}; a probe labels the very draw that the policy gave"
            )
    texts = (probe.row.get("response"), draw.row.get("response"))
    if None not in texts and texts[0] != texts[1]:
        raise UserError(
            f"{probe.where}: response is {texts[0]!r:.60}, but its draw ({draw.where}) is {texts[1]!r:.60}; "
            "a probe labels the very draw that the policy gave"
        )
