"""Judged and labelled responses that stand beside the logged ones and enter calibration only.

A row is known by the response it speaks of: policy, draw and prompt (and the text where the draw is not numbered), never
by its prompt alone, since labels of several policies' responses to one prompt are several pairs. What is there twice,
in this file or as a labelled row of the logged data, counts once.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.fields import SAME
from arena_cje.data.logged import read_logged
from arena_cje.data.reading import Reading
from arena_cje.data.rows import NO_SCORE, Response, arrays, counts, named, read_pairs
from arena_cje.data.schemas import CALIBRATION
from arena_cje.errors import UserError
from arena_cje.estimation.records import Judged, Labelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.data.rows import Source

NO_LABEL, TWICE, LOGGED_ALREADY = "no oracle label", "repeated", "labelled in the logged data"

# Two labels of one response: what an oracle that is asked again, or rounds, may say otherwise, and no more.
LABEL_TOLERANCE = 0.05


def load_calibration(
    source: Source,
    *,
    logged: Source,
    base_policy: str | None = None,
    reading: Reading = Reading(),
) -> tuple[Labelled, dict[str, Any]]:
    """The calibration data as arrays, and how many rows were read and dropped, and why; `logged` is what they stand beside."""
    responses, base, _ = read_logged(logged, base_policy, reading=reading.without_covariates())
    kept, summary = read_calibration(source, responses, base, reading=reading)
    return calibration_arrays(kept, reading), summary


def calibration_arrays(kept: Sequence[Response], reading: Reading) -> Labelled:
    """Rows of `read_calibration` as arrays."""
    found = arrays(kept, (len(kept),), len(reading.covariates))
    label = found.pop("oracle_label")
    judged = Judged.of(found["judge_score"], found["covariates"], found["judge_points"], found["judge_mass"])
    return Labelled(np.array([response.prompt_id for response in kept]), judged, label)


def read_calibration(
    source: Source,
    logged: Sequence[Response],
    base: str,
    *,
    reading: Reading = Reading(),
) -> tuple[list[Response], dict[str, Any]]:
    """The checked rows that have a score and a label and are there once, and how many were read and dropped, and why."""
    responses = read_pairs(CALIBRATION, source, reading=reading)
    of_prompt: dict[str, list[Response]] = {}
    for row in logged:
        of_prompt.setdefault(row.prompt_id, []).append(row)
    seen: dict[tuple, Response] = {}
    kept, dropped = [], Counter()
    for response in responses:
        reason = (
            _unusable(response)
            or _repeats(response, seen)
            or _is_logged(response, of_prompt.get(response.prompt_id, ()), base)
        )
        if reason:
            dropped[reason] += 1
        else:
            kept.append(response)
    if not kept:
        told = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "it is empty"
        raise UserError(f"{named(source)}: no row is left to calibrate with ({told}); leave calibration_data out")
    return kept, counts(responses, kept, dropped)


def _unusable(response: Response) -> str | None:
    if response.judge_score is None:
        return NO_SCORE
    return NO_LABEL if response.oracle_label is None else None


def _repeats(response: Response, seen: dict[tuple, Response]) -> str | None:
    """Was this very response there before? Another score or label of it is refused."""
    text = None if response.numbered else response.row.get("response")
    first = seen.setdefault((_policy(response), response.draw_idx, response.prompt_id, text), response)
    if first is response:
        return None
    if _values(first) == _values(response):
        return TWICE
    raise UserError(
        f"{response.where}: prompt_id {response.prompt_id!r} appears again with other values (first at {first.where}); "
        "keep one of the two, or tell the responses apart by `policy`, `draw_idx` or `response`"
    )


def _values(response: Response) -> tuple:
    return response.judge_score, response.oracle_label, response.distribution, response.covariates


def _is_logged(response: Response, rows: Sequence[Response], base: str) -> str | None:
    """Is this one of the prompt's logged rows, with its label? Another label, or another score of the base, is refused."""
    policy = _policy(response)
    if policy not in (base, None):
        return None
    rows = [row for row in rows if row.judge_score is not None and _may_be(response, row)]
    same = [row for row in rows if abs(row.judge_score - response.judge_score) <= SAME]
    if rows and not same and policy is not None:
        raise UserError(
            f"{response.where}: judge_score of the base policy's response to prompt {response.prompt_id!r} is not that of "
            f"the logged row ({rows[0].where}); one response has one score (number the base's responses by draw_idx if it "
            "gave several)"
        )
    labelled = [row for row in same if row.oracle_label is not None]
    if not labelled:
        return None
    if all(abs(row.oracle_label - response.oracle_label) > LABEL_TOLERANCE for row in labelled):
        raise UserError(
            f"{response.where}: oracle_label of the response to prompt {response.prompt_id!r} differs by more than "
            f"{LABEL_TOLERANCE} from that of the logged row ({labelled[0].where}); one response has one label (name its "
            "`policy` if this is another policy's response)"
        )
    return LOGGED_ALREADY


def _may_be(response: Response, row: Response) -> bool:
    """Does nothing tell a response from a logged row of its prompt: neither a number nor the text?"""
    texts = (response.row.get("response"), row.row.get("response"))
    numbered = response.numbered and response.draw_idx != row.draw_idx
    return not numbered and (None in texts or texts[0] == texts[1])


def _policy(response: Response) -> str | None:
    """The policy that a row names, None where it names none."""
    names = [response.row[field] for field in ("policy", "target_policy") if response.row.get(field) is not None]
    if len(set(names)) == 2:
        raise UserError(
            f"{response.where}: policy is {names[0]!r} but target_policy is {names[1]!r}; make them agree, or give one"
        )
    return names[0] if names else None
