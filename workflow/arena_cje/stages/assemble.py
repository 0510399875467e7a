"""Join the outputs of the stages into one data set in the CJE format, with an account of what was dropped and why.

Logged rows are the base policy's responses with their log probabilities under every policy, the judges' scores and the
oracle's label where there is one. A row without a response, without a score of any judge, or without a base log probability
cannot be analysed: it is dropped and counted. A row without a log probability under one target stays, and is left out for that
target alone. Policies without log probabilities have null in every row; where the base is one of them no row needs a log
probability, and only `direct` can be estimated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from arena_cje.data.schemas import GRADES
from arena_cje.grading.unscored import check_unscored

Row = dict[str, Any]
Grades = Mapping[str, Sequence[Row]]  # by stage: `judge`, `judges/NAME`, `oracle`
Served = dict[str, dict[str, list[Row]]]  # by stage and policy: which versions answered, and how often

JUDGES = "judges/"  # begins the stage of a further judge

# What is kept of responses and grades while others are read; the responses' texts are read when the rows are made.
SERVED_BY = ("prompt_id", "draw_idx", "model", "system_fingerprint")
GRADE_COLUMNS = (*SERVED_BY, "score", "reason", "distribution", "label_probability")
LOGPROB_COLUMNS = ("prompt_id", "logprob", "n_boundary", "status")


def grade_files(judge: str, oracle: str | Sequence[str], judges: Iterable[str]) -> dict[str, str]:
    """Files of grades of one policy's responses by stage; those of further judges lie in folders of their names."""
    further = {f"{JUDGES}{Path(path).parent.name}": path for path in judges}
    return {"judge": judge} | further | ({"oracle": str(oracle)} if oracle else {})


def grade_files_of(policy: str, inputs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The same out of the files of several policies, by the rule inputs `judge`, `judges` and `oracle`."""
    of_policy = {
        name: [path for path in inputs.get(name, ()) if Path(path).stem == policy] for name in ("judge", "judges")
    }
    labels = [path for path in inputs.get("oracle", ()) if Path(path).parent.name == policy]
    return grade_files(of_policy["judge"][0], "".join(labels), of_policy["judges"])


def read_grades(files: Mapping[str, str], limits: Mapping[str, float]) -> dict[str, list[Row]]:
    """Grades by stage; raises a `UserError` where the share of unusable answers of a stage exceeds its limit.

    limits: `max_unscored` by stage; a stage without one has no limit.
    """
    grades = {stage: GRADES.read(path, GRADE_COLUMNS) for stage, path in files.items()}
    for stage, rows in grades.items():
        if stage in limits:
            check_unscored(rows, limits[stage], stage.replace("/", "."), files[stage])
    return grades


def policy_logprobs(scored: pl.DataFrame, *, temperature: float, top_p: float) -> pl.DataFrame:
    """Rows of one sampling out of a scoring context: the log probabilities of the policies that sample so."""
    return scored.filter((pl.col("temperature") == temperature) & (pl.col("top_p") == top_p)).drop(
        "temperature", "top_p"
    )


def scores_at(temperature: float, scored: pl.DataFrame | None) -> dict[str, Row]:
    """The scores of a context at a temperature, without a nucleus, by prompt id; none where nothing was scored."""
    rows = [] if scored is None else policy_logprobs(scored, temperature=temperature, top_p=1.0).iter_rows(named=True)
    return {row["prompt_id"]: row for row in rows}


def by_key(rows: Iterable[Row]) -> dict[tuple[str, int], Row]:
    """Grades by (prompt id, draw)."""
    return {(row["prompt_id"], row["draw_idx"]): row for row in rows}


@dataclass
class Tally:
    """What was counted while rows were made."""

    n_rows: int = 0
    n_oracle: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # rows that cannot be analysed, by reason
    unscored: Counter[str] = field(default_factory=Counter)  # draws without a score of any judge, by reason
    not_scored: Counter[str] = field(default_factory=Counter)  # rows without a log probability, by target
    not_judged: Counter[str] = field(default_factory=Counter)  # rows without the score of a judge, by its field
    finish_reasons: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row, judges: Collection[str]) -> Row:
        """Count a row, with the fields of further judges."""
        self.n_rows += 1
        self.n_oracle += row["oracle_label"] is not None
        self.not_judged["judge_score"] += row["judge_score"] is None
        for name in judges:
            self.not_judged[name] += row["metadata"][name] is None
        return row


def logged_rows(
    responses: Iterable[Row],
    grades: Grades,
    logprobs: Mapping[str, pl.DataFrame],
    tally: Tally,
    *,
    base_policy: str,
    targets: Sequence[str],
) -> Iterator[Row]:
    """Rows of the logged data set one by one, as their responses are read, counted in the tally.

    logprobs: by the policies that can be scored.
    """
    scores, labels, further = by_key(grades["judge"]), by_key(grades.get("oracle", ())), _further(grades)
    place, log_probability = _side_by_side(logprobs)
    scorable = base_policy in logprobs
    for response in responses:
        tally.finish_reasons[str(response["finish_reason"])] += 1
        key, prompt_id = (response["prompt_id"], response["draw_idx"]), response["prompt_id"]
        base_logprob = log_probability[base_policy][place[prompt_id]] if scorable else None
        graded = {name: by_row[key] for name, by_row in further.items()}
        reason = _unusable(response, scores[key], list(graded.values()))
        if reason is None and base_logprob is None and scorable:
            reason = "no base log probability"
        if reason is not None:
            tally.dropped[reason] += 1
            continue
        under = {
            policy: log_probability[policy][place[prompt_id]] if policy in logprobs else None for policy in targets
        }
        tally.not_scored.update(policy for policy, value in under.items() if value is None)
        row = _row(response, scores[key], labels.get(key), graded)
        row["base_policy_logprob"] = base_logprob
        row["target_policy_logprobs"] = under
        yield tally.add(row, further)


def logged_summary(
    tally: Tally, logprobs: Mapping[str, pl.DataFrame], *, base_policy: str, targets: Sequence[str]
) -> dict[str, Any]:
    """What the logged rows are that were counted, and what was dropped."""
    return {
        "base_policy": base_policy,
        "target_policies": list(targets),
        "n_responses": tally.finish_reasons.total(),
        "n_rows": tally.n_rows,
        "n_oracle": tally.n_oracle,
        "dropped": dict(tally.dropped),
        "not_scored": {policy: tally.not_scored[policy] for policy in targets},
        "not_judged": _positive(tally.not_judged),
        "finish_reasons": dict(tally.finish_reasons),
        "scoring": {policy: _scoring(frame) for policy, frame in logprobs.items()},
    }


def _side_by_side(logprobs: Mapping[str, pl.DataFrame]) -> tuple[dict[str, int], dict[str, list[float | None]]]:
    """The place of each prompt, and the log probabilities of each policy by that place."""
    if not logprobs:
        return {}, {}
    ids = next(iter(logprobs.values())).select("prompt_id")
    values = {
        policy: ids.join(frame, on="prompt_id", how="left", maintain_order="left")["logprob"].to_list()
        for policy, frame in logprobs.items()
    }
    return {prompt_id: k for k, prompt_id in enumerate(ids["prompt_id"])}, values


def _further(grades: Grades) -> dict[str, dict[tuple[str, int], Row]]:
    """Grades of further judges by the field that holds them, then by (prompt id, draw)."""
    return {stage.replace(JUDGES, "judge_"): by_key(rows) for stage, rows in grades.items() if stage.startswith(JUDGES)}


def _unusable(response: Row, grade: Row, further: Sequence[Row]) -> str | None:
    """Why nobody can analyse a response: there is none, or no judge gave it a score; None otherwise."""
    if response["status"] != "ok":
        return f"response {response['status']}"
    scored = any(one["score"] is not None for one in (grade, *further))
    return None if scored else f"no judge score: {grade['reason']}"


def _positive(counts: Mapping[str, int]) -> dict[str, int]:
    """Those of some counts that are not 0. A row without a score of one judge has that of another."""
    return {name: count for name, count in counts.items() if count}


def _row(response: Row, grade: Row, label: Row | None, further: Mapping[str, Row] | None = None) -> Row:
    """What logged rows and fresh draws have in common; tokens are counted where they are known."""
    has_tokens = response["token_ids"] is not None
    counted = {"response_token_count": len(response["token_ids"])} if has_tokens else {}
    return {
        "prompt_id": response["prompt_id"],
        "draw_idx": response["draw_idx"],
        "prompt": response["prompt"],
        "response": response["response"],
        "judge_score": grade["score"],
        "judge_distribution": grade.get("distribution"),
        "oracle_label": None if label is None else label["score"],
        **_probability(label),
        "metadata": counted
        | {"finish_reason": response["finish_reason"]}
        | {name: one["score"] for name, one in (further or {}).items()},
    }


def _probability(label: Row | None) -> Row:
    """The probability with which a label was bought, where it was not bought at random."""
    has_probability = label is not None and label.get("label_probability") is not None
    return {"label_probability": label["label_probability"]} if has_probability else {}


PEOPLE = ("n_items", "n_votes", "n_raters", "n_open", "k", "icc_1_1", "icc_1_k", "noise_share")


def labels_by_people(agreement: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary has of the agreement of people, without their names."""
    return {name: agreement.get(name) for name in PEOPLE}


def _scoring(frame: pl.DataFrame) -> dict[str, Any]:
    """How scoring went under one policy: rows by status, tokens on the boundary of the nucleus, zero log probabilities."""
    return {
        "status": dict(sorted(Counter(frame["status"]).items())),
        "n_boundary": int(frame["n_boundary"].sum()),
        "n_zero_logprob": int((frame["logprob"] == 0.0).sum()),
    }


def draw_rows(responses: Iterable[Row], grades: Grades, tally: Tally) -> Iterator[Row]:
    """Fresh draws of one policy in the CJE format one by one, counted in the tally.

    A draw without a score stays, with null: the analysis leaves its prompt out for this policy alone, and counts it.
    """
    scores, labels, further = by_key(grades["judge"]), by_key(grades.get("oracle", ())), _further(grades)
    for response in responses:
        key = (response["prompt_id"], response["draw_idx"])
        graded = {name: by_row[key] for name, by_row in further.items()}
        reason = _unusable(response, scores[key], list(graded.values()))
        if reason is not None:
            tally.unscored[reason] += 1
        row = _row(response, scores[key], labels.get(key), graded) | {"target_policy": response["policy"]}
        yield tally.add(row, further)


def draw_summary(tally: Tally) -> dict[str, Any]:
    """How many draws there are, how many no judge gave a score, and why."""
    return {
        "n_rows": tally.n_rows,
        "unscored": dict(tally.unscored),
        "not_judged": _positive(tally.not_judged),
    }


def served(policy: str, stages: Mapping[str, Iterable[Row]]) -> Served:
    """Which versions of hosted models answered for one policy, with counts, by stage; local ones have a hash instead."""
    versions = {stage: _versions(rows) for stage, rows in stages.items()}
    return {stage: {policy: counts} for stage, counts in versions.items() if counts}


def _versions(rows: Iterable[Row]) -> list[Row]:
    counts = Counter((row.get("model"), row.get("system_fingerprint")) for row in rows)
    counts.pop((None, None), None)
    ordered = sorted(counts.items(), key=lambda item: [part or "" for part in item[0]])
    return [{"model": model, "system_fingerprint": fingerprint, "n": n} for (model, fingerprint), n in ordered]


def merge_versions(parts: Iterable[Served]) -> Served:
    """The versions that answered for several policies, as one record."""
    whole: Served = {}
    for part in parts:
        for stage, by_policy in part.items():
            whole.setdefault(stage, {}).update(by_policy)
    return whole
