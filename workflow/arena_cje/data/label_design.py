"""The design of the labels: which responses the oracle labels where labels are bought by score, and with what probability.

The design is a table of prompts in their order, whose places have the random numbers of `arena_cje.data.coverage`. Draw d of
the m draws of each prompt has the coverage c m - d of all m, so that a prompt's first draw is labelled before any second one,
as where labels are bought at random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.coverage import ONE, entry
from arena_cje.data.schemas import GRADES, LABEL_DESIGN
from arena_cje.estimation import label_design

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Row = dict[str, Any]
Probabilities = dict[tuple[str, int], float]  # of the responses that get a label, by (prompt id, draw)


def design(grades: Mapping[str, Sequence[Row]], base: str) -> list[Row]:
    """Rows of `LABEL_DESIGN` from the judge's grades by policy, those of the base policy among them."""
    prompts = list(dict.fromkeys(row["prompt_id"] for row in grades[base]))
    place = {name: k for k, name in enumerate(prompts)}
    scores = {policy: _scores(rows, place) for policy, rows in grades.items()}
    targets = [scores[policy] for policy in grades if policy != base]
    density = label_design.densities(scores[base][:, 0], targets)
    return [{"prompt_id": name, "density": float(one)} for name, one in zip(prompts, density, strict=True)]


def _scores(rows: Sequence[Row], place: Mapping[str, int]) -> np.ndarray:
    """Scores (n, m) of the draws of each prompt, NaN where there is none."""
    scores = np.full((len(place), 1 + max((row["draw_idx"] for row in rows), default=0)), np.nan)
    for row in rows:
        if row["score"] is not None and row["prompt_id"] in place:
            scores[place[row["prompt_id"]], row["draw_idx"]] = row["score"]
    return scores


def read_grades(paths: Mapping[str, str]) -> dict[str, list[Row]]:
    """Grades by policy out of their files."""
    return {policy: GRADES.read(path) for policy, path in paths.items()}


def labelled(path: str, *, coverage: float, draws: int) -> Probabilities:
    """The responses of a policy that get a label at a coverage, with their probabilities, by the design in a file."""
    rows = LABEL_DESIGN.read(path)
    density = np.array([row["density"] for row in rows])
    number = np.array([entry(k) / ONE for k in range(len(rows))])
    probabilities: Probabilities = {}
    for draw in range(draws):
        labels = round(min(max(coverage * draws - draw, 0.0), 1.0) * len(rows))
        probability = label_design.probabilities(density, labels)
        for k in np.flatnonzero(label_design.chosen(density, number, labels)):
            probabilities[rows[k]["prompt_id"], draw] = float(probability[k])
    return probabilities


def chosen(rows: Sequence[Row], probabilities: Probabilities) -> list[Row]:
    """The responses that get a label."""
    return [row for row in rows if (row["prompt_id"], row["draw_idx"]) in probabilities]


def with_probabilities(grades: Sequence[Row], probabilities: Probabilities) -> list[Row]:
    """The grades of these responses with the probabilities of their labels."""
    return [row | {"label_probability": probabilities[row["prompt_id"], row["draw_idx"]]} for row in grades]
