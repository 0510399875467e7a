"""Answers of policies to prompts as a data set in the CJE format.

The base policy's answers are logged rows, those of other policies fresh draws. Scores and labels are mapped from their
scale to [0, 1]. Repeated votes of the judge on one response are `judge_scores`; those of the oracle are averaged, and
kept under `metadata.label_votes`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from arena_cje.data.convert._answers import Answer, Loss, safe_name
from arena_cje.errors import UserError, did_you_mean, display_form

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from arena_cje.data.reading import Scale
    from arena_cje.files import Row

ORACLE = "oracle_label"  # the scorer with the oracle labels, where the user names no other
UNIT: Scale = (0.0, 1.0)
RESERVED = ("judge_score", "judge_scores", "judge_distribution")  # fields that are not of a further judge


@dataclass(frozen=True)
class Choices:
    """What a foreign file lacks: which policy is the base, the role of each scorer, and its scale."""

    base: str | None = None
    judge: str | None = None
    oracle: str | None = None
    scales: Mapping[str, Scale] = field(default_factory=dict)  # by scorer; "*" for all others
    # of a plain table: field of the format -> column, or columns with votes
    columns: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, scale in self.scales.items():
            if len(scale) != 2 or not 0 < scale[1] - scale[0] < math.inf:
                raise UserError(
                    f"the scale of {name} is {list(scale)!r}, expected its two finite ends, the lower first"
                )


@dataclass(frozen=True)
class Conversion:
    """A data set in the CJE format, and an account of what it was made from."""

    logged: list[Row]
    fresh: dict[str, list[Row]]  # by policy
    summary: dict[str, Any]


@dataclass
class _Response:
    """All answers about one response of a policy, merged."""

    first: Answer
    prompt: str | None = None
    response: str | None = None
    votes: dict[str, list[float]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)


def build(
    answers: Iterable[Answer | Loss],
    choices: Choices,
    *,
    default_judge: str | None = None,
    default_scales: Mapping[str, Scale] | None = None,
) -> Conversion:
    """The data set of some answers; raises a `UserError` where base policy or judge are not clear, or for a bad value."""
    losses: Counter[str] = Counter()
    responses: dict[tuple[str, str, int], _Response] = {}
    originals: dict[str, str] = {}  # of policies: original name by safe name
    original_scorers: dict[str, str] = {}
    original_targets: dict[str, str] = {}
    for answer in answers:
        if isinstance(answer, Loss):
            losses[answer.reason] += answer.count
            continue
        remedy = "rename one of the two (NAME=FILE names the policy of a file)"
        name = _own_name(originals, answer.policy, answer.where, "policies", remedy)
        for scorer in answer.scores:
            _own_name(original_scorers, scorer, answer.where, "scorers", "rename one of the two")
        for target in answer.target_logprobs or ():
            _own_name(original_targets, target, answer.where, "target policies", "rename one of the two")
        _merge(responses, (name, answer.prompt_id, answer.draw_idx), answer)
    if not responses:
        raise UserError(f"no response of any policy in it{_losses_text(losses)}")
    base = _base(choices.base, originals)
    scorers = list(dict.fromkeys(scorer for one in responses.values() for scorer in one.votes))
    if not scorers:
        raise UserError(
            f"no scores in it{_losses_text(losses)}; add the file with the scores, annotations or judgments of these responses"
        )
    with_votes = [name for name in scorers if any(one.votes.get(name) for one in responses.values())]
    judge, oracle = _scorers(with_votes or scorers, choices, default_judge)
    chosen_scales = _chosen_scales(choices.scales, scorers)
    scales = {name: _scale(name, chosen_scales, default_scales or {}) for name in scorers}
    rows: dict[str, list[Row]] = {name: [] for name in originals}
    for (name, _, _), response in responses.items():
        rows[name].append(_row(response, name, originals[name], judge, oracle, scales, is_base=name == base))
    summary = _summary(rows, base, originals, losses)
    summary |= {
        "judge": judge,
        "oracle": oracle,
        "scorers": with_votes,
        "scales": {name: list(scale) for name, scale in scales.items()},
    }
    summary["repeated_votes"] = sum(len(v) - 1 for one in responses.values() for v in one.votes.values() if len(v) > 1)
    return Conversion(rows[base], {name: rows[name] for name in rows if name != base}, summary)


def _losses_text(losses: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{count} x {reason}' for reason, count in losses.items())})" if losses else ""


def _own_name(originals: dict[str, str], name: Any, where: str, kind: str, remedy: str) -> str:
    """The safe name of a policy or scorer, which `originals` then has.

    Raises a `UserError` where it is that of another, and for a name that is no text, which damaged files can have.
    """
    if not isinstance(name, str):
        raise UserError(
            f"{where}: a name among the {kind} is {display_form(name)}, expected text; is the file complete?"
        )
    safe = safe_name(name)
    if originals.setdefault(safe, name) != name:
        raise UserError(f"{where}: {kind} {originals[safe]!r} and {name!r} would both be named {safe!r}; {remedy}")
    return safe


def _merge(responses: dict[tuple[str, str, int], _Response], key: tuple[str, str, int], answer: Answer) -> None:
    """Add an answer to the response that it is about."""
    response = responses.setdefault(key, _Response(answer))
    texts = (response.response, answer.response)
    if None not in texts and texts[0] != texts[1]:
        raise UserError(
            f"{answer.where}: policy {answer.policy!r} has another response to prompt {answer.prompt_id!r} at "
            f"{response.first.where}; if these are two policies, name them by NAME=FILE"
        )
    response.response = texts[0] if texts[0] is not None else texts[1]
    response.prompt = response.prompt if response.prompt is not None else answer.prompt
    for scorer, value in answer.scores.items():
        votes = response.votes.setdefault(safe_name(scorer), [])
        if value is not None:
            votes.append(value)
    response.answers.append(answer)


def _base(name: str | None, originals: Mapping[str, str]) -> str:
    """The safe name of the base policy."""
    policies = _shortened(originals.values())
    if name is None:
        if len(originals) == 1 or "base" in originals:
            return "base" if "base" in originals else next(iter(originals))
        raise UserError(
            f"{len(originals)} policies ({policies}) and none of them is named base; say which one the others are "
            "compared with: --base NAME (`base` in the configuration)"
        )
    for safe, original in originals.items():
        if name in (safe, original):
            return safe
    raise UserError(
        f"base policy {name!r} is not among the policies{did_you_mean(name, originals.values())}: {policies}"
    )


def _shortened(names: Collection[str]) -> str:
    """Names for a message: the first ten of many, each cut where it is long."""
    short = [name if len(name) <= 40 else f"{name[:37]}..." for name in islice(names, 10)]
    more = len(names) - len(short)
    return f"{', '.join(short)}{f' and {more} more; are these the names of policies?' if more else ''}"


def _scorers(scorers: Sequence[str], choices: Choices, default: str | None) -> tuple[str, str | None]:
    """The scorer that is the judge, and the one that has the oracle labels, None without any."""
    names = ", ".join(scorers)
    for key, name in (("judge", choices.judge), ("oracle", choices.oracle)):
        if name is not None and safe_name(name) not in scorers:
            raise UserError(f"{key} {name!r} is not among the scorers{did_you_mean(name, scorers)}: {names}")
    oracle = safe_name(choices.oracle) if choices.oracle else ORACLE if ORACLE in scorers else None
    others = [name for name in scorers if name != oracle]
    if choices.judge is not None:
        return safe_name(choices.judge), oracle
    if default in others or len(others) == 1:
        return default if default in others else others[0], oracle
    if not others:
        return scorers[0], oracle  # one scorer is both: its score is the truth itself
    raise UserError(
        f"scores by {len(others)} scorers ({', '.join(others)}); say which one is the judge: --judge NAME (`judge` in the "
        "configuration), and, if one of them has the labels that count, --oracle NAME"
    )


def _chosen_scales(scales: Mapping[str, Scale], scorers: Sequence[str]) -> dict[str, Scale]:
    """The user's scales by the safe names of their scorers; raises a `UserError` for one of a scorer that is not there."""
    for name in scales:
        if name != "*" and safe_name(name) not in scorers:
            raise UserError(
                f"a scale is set for {name!r}, which is not among the scorers{did_you_mean(name, scorers)}: {', '.join(scorers)}"
            )
    return {name if name == "*" else safe_name(name): scale for name, scale in scales.items()}


def _scale(name: str, scales: Mapping[str, Scale], defaults: Mapping[str, Scale]) -> Scale:
    for source in (scales, defaults):
        if name in source or "*" in source:
            return source.get(name, source.get("*"))
    return UNIT


def _row(
    response: _Response,
    name: str,
    original: str,
    judge: str,
    oracle: str | None,
    scales: Mapping[str, Scale],
    *,
    is_base: bool,
) -> Row:
    """The row of a response; a score that is missing is null."""
    first = response.first
    units = {scorer: _units(votes, scorer, scales[scorer], first.where) for scorer, votes in response.votes.items()}
    metadata = {key: value for answer in response.answers for key, value in answer.metadata.items()}
    row: Row = {
        "prompt_id": first.prompt_id,
        "draw_idx": first.draw_idx,
        ("base_policy" if is_base else "policy"): name,
        "prompt": response.prompt,
        "response": response.response,
        "judge_score": _mean(units.get(judge, [])),
        "oracle_label": _mean(units.get(oracle, [])),
    }
    if len(units.get(judge, [])) > 1:
        row["judge_scores"] = units[judge]
    for scorer, votes in units.items():
        if scorer not in (judge, oracle):
            row[_field(scorer)] = _mean(votes)
    if len(units.get(oracle, [])) > 1:
        metadata["label_votes"] = units[oracle]
    if original != name:
        metadata["policy_name"] = original
    clusters = [answer.cluster for answer in response.answers if answer.cluster is not None]
    if clusters:
        row["cluster"] = clusters[0]
    if is_base:
        row |= _logprobs(response.answers)
    return row | ({"metadata": metadata} if metadata else {})


def _logprobs(answers: Sequence[Answer]) -> Row:
    """Log probabilities of a logged row, as far as one of its answers has them."""
    fields: Row = {}
    for answer in answers:
        if answer.base_logprob is not None:
            fields["base_policy_logprob"] = answer.base_logprob
        if answer.target_logprobs is not None:
            fields["target_policy_logprobs"] = {
                safe_name(name): value for name, value in answer.target_logprobs.items()
            }
    return fields


def _units(votes: Sequence[float], scorer: str, scale: Scale, where: str) -> list[float]:
    """Scores on [0, 1]; raises a `UserError` for one outside its scale."""
    low, high = scale
    for vote in votes:
        if not low <= vote <= high:
            raise UserError(
                f"{where}: the score of {scorer} is {vote:g}, expected {low:g} to {high:g}; if its scale is another, "
                f"give it by --scale {scorer}=LOW,HIGH (`scales` in the configuration)"
            )
    return [(vote - low) / (high - low) for vote in votes]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _field(scorer: str) -> str:
    """The field of a further judge's score."""
    name = f"judge_{scorer}"
    return f"{name}_2" if name in RESERVED else name


def _summary(
    rows: Mapping[str, Sequence[Row]], base: str, originals: Mapping[str, str], losses: Mapping[str, int]
) -> dict[str, Any]:
    prompts = {row["prompt_id"] for row in rows[base]}
    policies = {}
    for name, own in rows.items():
        answered = {row["prompt_id"] for row in own}
        policies[name] = {
            "name_in_the_files": originals[name],
            "responses": len(own),
            "prompts": len(answered),
            "base_prompts_without_a_response": len(prompts - answered),
            "prompts_that_the_base_has_not": len(answered - prompts),
            "without_score": sum(row["judge_score"] is None for row in own),
            "labels": sum(row["oracle_label"] is not None for row in own),
        }
    return {"base_policy": base, "policies": policies, "not_carried": dict(losses)}
