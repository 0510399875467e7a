"""Calibration data: labelled responses, of any policy, that are used to fit the calibrator and nothing else.

A row is identified by its response: policy, draw and prompt, and the text where the draw has no number. Labels of several
policies' responses to one prompt are therefore several rows. A response that is there twice, in this file or as a labelled
row of the logged data, is counted once.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.fields import TOLERANCE
from arena_cje.data.logged import question_ids, read_logged
from arena_cje.data.reading import Reading
from arena_cje.data.rows import NO_SCORE, NO_TEXTS, Response, arrays, read_pairs, row_counts
from arena_cje.data.schemas import CALIBRATION
from arena_cje.data.sources import source_name
from arena_cje.errors import UserError
from arena_cje.estimation.records import Judged, Labelled, design_weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arena_cje.data.sources import Source

NO_LABEL, REPEATED, ALREADY_LOGGED = "no oracle label", "repeated", "labelled in the logged data"

# Largest difference of two labels of one response, by an oracle that is called twice or that rounds.
LABEL_TOLERANCE = 0.05


def labels_on_draws_alone(policies: Iterable[str]) -> str:
    """Why labels of policies' fresh draws are not enough, and what to do."""
    return (
        f"no logged row has an oracle_label, but fresh draws of {', '.join(policies)} have labels: pass their file as "
        "calibration_data, too, so that the calibration of all policies uses them"
    )


def load_calibration(
    source: Source,
    *,
    logged: Source,
    base_policy: str | None = None,
    reading: Reading = Reading(),
) -> tuple[Labelled, dict[str, Any]]:
    """The calibration data as arrays, and the numbers of rows that were read, used and dropped by reason.

    logged: the logged data of the same analysis, whose labelled rows are dropped here.
    Raises a `UserError` as `read_calibration` does.
    """
    responses, base, _ = read_logged(logged, base_policy, reading=reading.without_covariates(), texts=NO_TEXTS)
    rows, summary = read_calibration(source, responses, base, reading=reading)
    return calibration_arrays(rows, reading), summary


def calibration_arrays(
    rows: Sequence[Response], reading: Reading, questions: Mapping[str, str] | None = None
) -> Labelled:
    """The rows of `read_calibration` as arrays; questions: the cluster of logged prompts, where they have clusters."""
    fields = arrays(rows, (len(rows),), len(reading.covariates))
    label = fields.pop("oracle_label")
    judged = Judged.of(fields["judge_score"], fields["covariates"], fields["judge_points"], fields["judge_mass"])
    own = question_ids(rows)
    prompts = [response.prompt_id for response in rows]
    logged_questions = questions or {}
    question = own if own is not None else np.array([logged_questions.get(name, name) for name in prompts])
    return Labelled(question, judged, label, design_weight(fields["label_probability"], ~np.isnan(label)))


def read_calibration(
    source: Source,
    logged: Sequence[Response],
    base: str,
    *,
    reading: Reading = Reading(),
) -> tuple[list[Response], dict[str, Any]]:
    """The checked rows with a score and a label, each once, and the numbers of rows read, used and dropped by reason.

    logged, base: the logged rows, and the name of their policy.
    Raises a `UserError` for a response with two labels or scores that differ, and where no row is left.
    """
    responses = read_pairs(CALIBRATION, source, reading=reading)
    logged_by_prompt: dict[str, list[Response]] = {}
    for row in logged:
        logged_by_prompt.setdefault(row.prompt_id, []).append(row)
    first_rows: dict[tuple, Response] = {}
    rows, dropped = [], Counter()
    for response in responses:
        if response.judge_score is None:
            dropped[NO_SCORE] += 1
        elif response.oracle_label is None:
            dropped[NO_LABEL] += 1
        elif _is_repeated(response, first_rows):
            dropped[REPEATED] += 1
        elif _is_logged(response, logged_by_prompt.get(response.prompt_id, ()), base):
            dropped[ALREADY_LOGGED] += 1
        else:
            rows.append(response)
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "it is empty"
        raise UserError(f"{source_name(source)}: no rows for the calibration ({reasons}); leave calibration_data out")
    return rows, row_counts(responses, rows, dropped)


def _is_repeated(response: Response, first_rows: dict[tuple, Response]) -> bool:
    """Whether an earlier row has the same response; raises a `UserError` if it has other values.

    first_rows: the first row of each response, completed by this call.
    """
    text = None if response.has_draw_idx else response.row.get("response")
    key = (_policy_name(response), response.draw_idx, response.prompt_id, text)
    first = first_rows.setdefault(key, response)
    if first is response:
        return False
    if _values(first) == _values(response):
        return True
    raise UserError(
        f"{response.where}: prompt_id {response.prompt_id!r} appears again with other values (first at {first.where}); keep "
        "one of the two, or distinguish the responses by `policy`, `draw_idx` or `response`"
    )


def _values(response: Response) -> tuple:
    return response.judge_score, response.oracle_label, response.distribution, response.covariates


def _is_logged(response: Response, logged: Sequence[Response], base: str) -> bool:
    """Whether one of the prompt's logged rows has the same response and a label of it.

    Raises a `UserError` for another label than the logged one, and for another score of the base policy's response.
    """
    policy = _policy_name(response)
    if policy not in (base, None):
        return False
    candidates = [row for row in logged if row.judge_score is not None and _may_be_same(response, row)]
    matches = [row for row in candidates if abs(row.judge_score - response.judge_score) <= TOLERANCE]
    if candidates and not matches and policy is not None:
        raise UserError(
            f"{response.where}: judge_score of the base policy's response to prompt {response.prompt_id!r} differs from that "
            f"of the logged row ({candidates[0].where}); one response has one score (number several responses of the base by "
            "`draw_idx`)"
        )
    labelled = [row for row in matches if row.oracle_label is not None]
    if labelled and all(abs(row.oracle_label - response.oracle_label) > LABEL_TOLERANCE for row in labelled):
        raise UserError(
            f"{response.where}: oracle_label of the response to prompt {response.prompt_id!r} differs by more than "
            f"{LABEL_TOLERANCE} from that of the logged row ({labelled[0].where}); one response has one label (set its "
            "`policy` if this is another policy's response)"
        )
    return bool(labelled)


def _may_be_same(response: Response, row: Response) -> bool:
    """Whether a row and a logged row of its prompt differ neither in their draw_idx nor in their text."""
    without_text = None in (response.n_characters, row.n_characters)
    other_draw = response.has_draw_idx and response.draw_idx != row.draw_idx
    return not other_draw and (without_text or response.text_hash == row.text_hash)


def _policy_name(response: Response) -> str | None:
    """The policy that a row names, None where it names none."""
    names = [response.row[field] for field in ("policy", "target_policy") if response.row.get(field) is not None]
    if len(set(names)) == 2:
        raise UserError(
            f"{response.where}: policy is {names[0]!r} but target_policy is {names[1]!r}; make them agree, or keep one of them"
        )
    return names[0] if names else None
