"""Grades: scores of judges and labels of the oracle, which differ only in what they cost.

A score lies in [0, 1]. A judge that chooses among answers, or answers several times, gives a distribution over scores too:

    mass_k = p(answer_k) / sum_j p(answer_j),   score = sum_k mass_k score_k

and repeated answers have equal masses. A grader has `identity(item)`, all that determines one grade, and `grade(items)`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from arena_cje.provenance import canonical, digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Distribution = tuple[tuple[float, float], ...]  # (score, mass): scores rise, masses are above 0 and sum to one
Row = dict[str, Any]

# Why there is no score. Nothing was asked, or no answer could have helped:
NO_RESPONSE = "there is no response to judge"
TOO_LONG = "prompt and response do not fit the judge's context"
NOT_FINITE = "the model returned no number"
NO_REFERENCE = "the prompt has no reference"
CONTROL_TOKENS = "the text contains control tokens of the model"
NOT_ASKED = (NO_RESPONSE, TOO_LONG, NOT_FINITE, NO_REFERENCE, CONTROL_TOKENS)
# There was an answer, and it could not be used:
NO_SCORE = "the answer contains no JSON object with a score"
NO_JSON = "the answer is not JSON"
TWO_SCORES = "the answer gives different scores"
NO_NUMBER = "the score is not a number"
OFF_SCALE = "the score is not on the scale"
CUT = "the answer was cut off"
UNREADABLE = "the server's reply cannot be read"
DECLINED = "the judge declined to answer"
NOT_ECHOED = "the server returned another text than it received"


@dataclass(frozen=True)
class Grade:
    """A score in [0, 1], or None and the reason."""

    score: float | None  # the mean of the distribution, where there is one
    reason: str | None = None  # why there is no score
    reply: str | None = None  # the grader's raw answer; a JSON list of answers where there were several samples
    distribution: Distribution | None = None
    choice_mass: float | None = None  # probability of all choices together: how well the model understood the question
    prompt_tokens: int = 0  # read by a local model
    response_tokens: int = 0  # written or scored by a local model
    model: str | None = None  # version behind an API that answered
    system_fingerprint: str | None = None


@dataclass(frozen=True)
class Item:
    """A response to be graded."""

    prompt_id: str
    draw_idx: int
    prompt: str
    response: str
    token_ids: tuple[int, ...] = ()  # for the grader's model, where it reads tokens
    reference: Mapping[str, Any] | None = None  # the checks of the reference oracle
    answered: bool = True  # is there a response? It may be empty
    stopped: bool = True  # did the response end by itself, or at max_tokens?


class Grader(Protocol):
    """A grader that runs in the job itself: a local model, or the reference oracle."""

    def identity(self, item: Item) -> dict[str, Any]:
        """Everything that determines the grade of an item, as plain JSON values."""

    def grade(self, items: Mapping[str, Item]) -> Iterable[tuple[str, Grade]]:
        """Grades by key, in any order, as they are ready."""


def unread(answer: Grade) -> bool:
    """Did an answer come that gives no score, so that asking again may help?"""
    return answer.score is None and answer.reason not in (*NOT_ASKED, UNREADABLE)


def combined(answers: Sequence[Grade]) -> Grade:
    """One grade from the answers to one question: their mean, and their distribution where there are several.

    An answer that gives no score is left out; there is no grade where none gives one.
    """
    if len(answers) == 1:
        return answers[0]
    scores = [answer.score for answer in answers if answer.score is not None]
    pairs = equal_masses(scores) if scores else None
    return Grade(
        mean_score(pairs) if pairs else None,
        reason=None if pairs else answers[0].reason,
        reply=canonical([answer.reply for answer in answers]),
        distribution=pairs,
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        response_tokens=sum(answer.response_tokens for answer in answers),
        model=_versions(answer.model for answer in answers),
        system_fingerprint=_versions(answer.system_fingerprint for answer in answers),
    )


def _versions(names: Iterable[str | None]) -> str | None:
    """The different versions that answered, nearly always one."""
    return ", ".join(sorted({name for name in names if name})) or None


def ensemble(members: Mapping[str, Sequence[Row]], *, distributions: bool = False) -> list[Row]:
    """Rows of `schemas.GRADES` with the mean score of several judges, from their rows for the same responses.

    There is no score where a member has none, since a mean of the others would be another judge's. distributions: whether
    rows keep the members' scores, with equal masses.
    """
    rows = []
    for graded in zip(*members.values(), strict=True):
        place = {"prompt_id": graded[0]["prompt_id"], "draw_idx": graded[0]["draw_idx"]}
        if any(row["prompt_id"] != place["prompt_id"] or row["draw_idx"] != place["draw_idx"] for row in graded):
            raise ValueError(
                f"the judges {', '.join(members)} graded different responses, or in another order, at {place}"
            )
        missing = [
            f"{name}: {row['reason']}" for name, row in zip(members, graded, strict=True) if row["score"] is None
        ]
        pairs = None if missing else equal_masses([row["score"] for row in graded])
        rows.append(
            place
            | {"score": mean_score(pairs) if pairs else None, "reason": "; ".join(missing) or None, "reply": None}
            | {"distribution": [list(pair) for pair in pairs] if pairs and distributions else None}
            | {"choice_mass": None, "item": digest({"ensemble": [row["item"] for row in graded]})}
        )
    return rows


def equal_masses(scores: Sequence[float]) -> Distribution:
    """The distribution of scores that count the same."""
    return tuple((score, count / len(scores)) for score, count in sorted(Counter(scores).items()))


def distribution(logprobs: np.ndarray, scores: np.ndarray) -> Distribution:
    """Masses of the answers' scores from log probabilities (k,) nats; answers of one score count together."""
    weight = np.exp(logprobs - logprobs.max())  # (k,) the maximum first: all the answers may be most improbable
    points, place = np.unique(scores, return_inverse=True)
    mass = np.bincount(place, weight) / weight.sum()
    return tuple((float(point), float(share)) for point, share in zip(points, mass, strict=True) if share > 0)


def mean_score(pairs: Distribution) -> float:
    """Mean score of a distribution, never outside its scores for rounding."""
    value = sum(point * share for point, share in pairs)
    return min(max(value, pairs[0][0]), pairs[-1][0])
