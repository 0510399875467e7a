"""People as the oracle: from responses to a labelling batch, and from labels of texts to grades of responses.

People label the first draw of a policy to a prompt.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from arena_cje.data.coverage import has_label
from arena_cje.grading.grades import NO_RESPONSE
from arena_cje.labeling.records import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arena_cje.labeling.records import KeyRow

Row = dict[str, Any]

NO_BATCH = "no labelling batch contains the response"
NO_VOTES = "no vote on the response yet"


def answers(prompts: Sequence[Row], responses: Mapping[str, Iterable[Row]]) -> tuple[list[Answer], Counter[str]]:
    """Responses that can be labelled, and how many cannot, by the status of the response.

    prompts: all of them in the experiment's order; responses: by policy.
    """
    position = {row["prompt_id"]: place for place, row in enumerate(prompts)}
    usable, left_out = [], Counter()
    for policy, rows in responses.items():
        for row in rows:
            if row["draw_idx"]:
                continue
            if row["status"] != "ok":
                left_out[row["status"]] += 1
                continue
            name = row["prompt_id"]
            usable.append(Answer(position[name], name, row["prompt"], row["response"], policy))
    return usable, left_out


def grades(
    responses: Sequence[Row],
    policy: str,
    coverage: float,
    key: Iterable[KeyRow],
    labels: Iterable[Row],
    *,
    above: float = 0.0,
) -> list[Row]:
    """Rows of `schemas.GRADES` of a policy's responses at a coverage; null, with the reason, where there is no label yet.

    above: a lower coverage, whose responses are left out.
    """
    item_of = {(row.prompt_id, row.draw_idx): row.item_id for row in key if row.policy == policy}
    label_of = {row["item_id"]: row["label"] for row in labels}
    firsts = [row for row in responses if row["draw_idx"] == 0]
    rows = []
    for place, response in enumerate(firsts):
        if has_label(place, above) or not has_label(place, coverage):
            continue
        item = item_of.get((response["prompt_id"], 0))
        label = label_of.get(item)
        without = NO_RESPONSE if response["status"] != "ok" else NO_BATCH if item is None else NO_VOTES
        rows.append(
            {
                "prompt_id": response["prompt_id"],
                "draw_idx": 0,
                "score": label,
                "reason": without if label is None else None,
                "reply": None,
                "distribution": None,
                "choice_mass": None,
                "item": item or "",
            }
        )
    return rows


def items_of(key: Iterable[KeyRow], prompts: Sequence[Row], span: tuple[float, float]) -> set[str]:
    """Items of the prompts between two coverages; prompts: all of them in the experiment's order."""
    begin, end = span
    within = {
        row["prompt_id"] for place, row in enumerate(prompts) if has_label(place, end) and not has_label(place, begin)
    }
    return {row.item_id for row in key if row.prompt_id in within}


def judge_scores(key: Iterable[KeyRow], judged: Mapping[str, Iterable[Row]]) -> dict[str, float]:
    """The judge's score of each text: the mean, where a text is the response of several policies.

    judged: grades by policy.
    """
    score_of, of_item = scores(judged), defaultdict(list)
    for row in key:
        score = score_of.get((row.policy, row.prompt_id, row.draw_idx))
        if score is not None:
            of_item[row.item_id].append(score)
    return {item: sum(values) / len(values) for item, values in of_item.items()}


def scores(graded: Mapping[str, Iterable[Row]]) -> dict[tuple[str, str, int], float | None]:
    """Scores by policy, prompt and draw; graded: grades by policy."""
    return {
        (policy, row["prompt_id"], row["draw_idx"]): row["score"] for policy, rows in graded.items() for row in rows
    }


def texts(key: Iterable[KeyRow], responses: Mapping[str, Iterable[Row]]) -> dict[str, Row]:
    """Policies, prompt and response of each text, by its id."""
    text_of = {
        (policy, row["prompt_id"], row["draw_idx"]): (row["prompt"], row["response"])
        for policy, rows in responses.items()
        for row in rows
    }
    of_item: dict[str, Row] = {}
    for row in key:
        prompt, response = text_of.get((row.policy, row.prompt_id, row.draw_idx), (None, None))
        before = of_item.setdefault(row.item_id, {"policies": "", "prompt": prompt, "response": response})
        before["policies"] = ", ".join(filter(None, [before["policies"], row.policy]))
    return of_item
