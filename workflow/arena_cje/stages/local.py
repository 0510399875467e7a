"""The long stages on this machine's models, and grading by any grader: finished items are in the journal.

Each function gives every row a key, the hash of all that determines its result; takes finished results from the journal; makes
the rest; and returns rows in the order of its input. Prompt ids and draws label rows: they enter a key only where the random
stream of a response depends on them.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from arena_cje.data.coverage import has_label
from arena_cje.grading.grades import Grade, Grader, Item
from arena_cje.journal import FinishedItem, Journal, complete
from arena_cje.llama import chat, generator, scorer
from arena_cje.llama.distribution import Sampling, stream
from arena_cje.provenance import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from arena_cje.calls.request import Ask
    from arena_cje.grading.hosted import HostedJudge, HostedLikelihood

log = logging.getLogger(__name__)

Row = dict[str, Any]


def responses(
    model: Any,
    model_sha256: str,
    prompts: Sequence[Row],
    *,
    policy: str,
    system_prompt: str | None,
    sampling: Sampling,
    max_tokens: int,
    draws: int,
    seed: int,
    n_slots: int,
    cache_tokens: int,
    journal: Journal,
) -> list[Row]:
    """Responses of one policy to the prompts, `draws` of each: rows of `schemas.RESPONSES`."""
    requests, keys = {}, []
    for row in prompts:
        prompt_ids = chat.render(model, system_prompt, row["prompt"])
        for draw in range(draws):
            who = {"seed": seed, "policy": policy, "prompt_id": row["prompt_id"], "draw": draw}
            how = {**asdict(sampling), "max_tokens": max_tokens, "fits": len(prompt_ids) + max_tokens <= model.n_ctx}
            key = digest({"generate": generator.VERSION, "model": model_sha256, "prompt_ids": prompt_ids, **how, **who})
            requests[key] = generator.Request(key, prompt_ids, stream(seed, policy, row["prompt_id"], draw))
            keys.append((key, row, draw))

    def work(missing: Mapping[str, generator.Request]) -> Iterator[FinishedItem]:
        for generated in generator.generate(
            model,
            missing.values(),
            sampling,
            max_tokens=max_tokens,
            n_slots=n_slots,
            cache_tokens=cache_tokens,
            shared=chat.shared(model, system_prompt),
        ):
            record = {
                "token_ids": list(generated.token_ids),
                "finish_reason": generated.finish_reason,
                "status": generated.status,
            }
            n_read = len(requests[generated.key].prompt_ids) if generated.status == "ok" else 0
            yield FinishedItem(generated.key, record, n_read, len(generated.token_ids))

    finished = complete(journal, requests, work, unit="responses")
    rows = [
        {
            "prompt_id": row["prompt_id"],
            "policy": policy,
            "draw_idx": draw,
            "prompt": row["prompt"],
            "response": generator.text_of(model, finished[key]["token_ids"]),
            **finished[key],
            "seed": seed,
            "model_sha256": model_sha256,
            "item": key,
        }
        for key, row, draw in keys
    ]
    warn_missing(row["status"] for row in rows)
    return rows


def logprobs(
    model: Any,
    model_sha256: str,
    rows: Sequence[Row],
    *,
    system_prompt: str | None,
    samplings: Sequence[Sampling],
    drawn_from: Sampling | None,
    same_tokenizer: bool,
    journal: Journal,
) -> list[Row]:
    """Log probabilities of responses in one scoring context: a row for each response and sampling.

    drawn_from: the sampling that drew the responses when this is the context they were drawn in, else None.
    same_tokenizer: whether this model shares its token ids with the one that generated (see `response_tokens`).
    """
    keys: dict[tuple[str, Sampling], str] = {}
    passes: dict[str, scorer.Item] = {}
    pass_of: list[tuple[Row, str]] = []  # each row with the name of its forward pass
    for row in rows:
        prompt_ids = chat.render(model, system_prompt, row["prompt"])
        response_ids = response_tokens(model, row, system_prompt=system_prompt, same_tokenizer=same_tokenizer)
        fits = len(prompt_ids) + len(response_ids) <= model.n_ctx
        name = digest({"model": model_sha256, "prompt_ids": prompt_ids, "response_ids": response_ids, "fits": fits})
        passes[name] = scorer.Item(name, prompt_ids, response_ids)
        pass_of.append((row, name))
        for sampling in samplings:
            how = {**asdict(sampling), "drawn": sampling == drawn_from and sampling.top_p < 1}
            keys[name, sampling] = digest({"score": scorer.VERSION, "pass": name, **how})

    def work(missing: Mapping[str, tuple[str, Sampling]]) -> Iterator[FinishedItem]:
        # One pass serves all samplings of a response; those the journal has are computed again for nothing, at 0.2 ms a token.
        again = {name for name, _ in missing.values()}
        todo = [passes[name] for name in passes if name in again]
        shared = chat.shared(model, system_prompt)
        for name, scored in scorer.score(model, todo, samplings, drawn_from=drawn_from, shared=shared):
            n_scored = len(scored[0].token_logprobs)
            tokens = (len(passes[name].prompt_ids), n_scored) if n_scored else (0, 0)
            for sampling, result in zip(samplings, scored, strict=True):
                if (key := keys[name, sampling]) in missing:
                    yield FinishedItem(key, _scored(result), *tokens)
                    tokens = (0, 0)  # the pass is counted once

    finished = complete(journal, {key: what for what, key in keys.items()}, work, unit="scores")
    scores = [
        {
            "prompt_id": row["prompt_id"],
            **asdict(sampling),
            **_unjournalled(finished[keys[name, sampling]]),
        }
        for row, name in pass_of
        for sampling in samplings
    ]
    for sampling in samplings:
        _log_support(sampling, [row for row in scores if sampling == Sampling(row["temperature"], row["top_p"])])
    warn_missing(row["status"] for row in scores)
    return scores


def _log_support(sampling: Sampling, scores: Sequence[Row]) -> None:
    """Log how many responses touch or leave the set of tokens that a sampling can draw."""
    n_boundary = sum(row["n_boundary"] for row in scores)
    n_outside = sum(row["status"] == "outside_support" for row in scores)
    if n_boundary or n_outside:
        log.info(
            "temperature %g, top_p %g: %d tokens on the boundary of the nucleus, %d of %d responses outside the support",
            sampling.temperature,
            sampling.top_p,
            n_boundary,
            n_outside,
            len(scores),
        )


def warn_missing(statuses: Iterable[str]) -> None:
    """Warn how many rows have no result, by status. A response outside the support has one: its probability is 0."""
    counts = Counter(statuses)
    for status in sorted(counts.keys() - {"ok", "outside_support"}):
        log.warning("%d of %d rows: %s", counts[status], counts.total(), status)


def response_tokens(model: Any, row: Row, *, system_prompt: str | None, same_tokenizer: bool) -> tuple[int, ...]:
    """Token ids of a response for this model; empty where there is no response.

    With the same tokenizer they are the ids that were generated: tokenising the text again often gives others. Otherwise
    the text is tokenised after the prompt (`chat.respond`), control tokens written in it staying text, and the end of
    turn is added where the response stopped by itself.
    """
    if same_tokenizer or row["status"] != "ok":
        return tuple(row["token_ids"] or ())
    ids = chat.respond(model, system_prompt, row["prompt"], row["response"])
    return (*ids, chat.end_of_turn(model)) if row["finish_reason"] == "stop" else ids


def _scored(result: scorer.Scored) -> Row:
    """A score as a journal record: JSON has no infinity, so impossible tokens are null there."""
    tokens = [value if value > float("-inf") else None for value in result.token_logprobs.tolist()]
    return {"token_logprobs": tokens, "n_boundary": result.n_boundary, "status": result.status}


def _unjournalled(record: Row) -> Row:
    tokens = [float("-inf") if value is None else value for value in record["token_logprobs"]]
    has_total = record["status"] in ("ok", "outside_support")
    return {
        "logprob": math.fsum(tokens) if has_total else None,
        "n_tokens": len(tokens),
        "token_logprobs": tokens,
        "n_boundary": record["n_boundary"],
        "status": record["status"],
    }


def items(
    rows: Iterable[Row],
    *,
    references: Mapping[str, Mapping[str, Any]] | None = None,
    tokens: Callable[[Row], tuple[int, ...]] = lambda row: tuple(row["token_ids"] or ()),
) -> list[Item]:
    """Responses as items to be graded, with the reference of their prompts where a grader reads it.

    tokens: token ids of a response for the grader's model; there are none where there is no response.
    """
    return [
        Item(
            prompt_id=row["prompt_id"],
            draw_idx=row["draw_idx"],
            prompt=row["prompt"],
            response=row["response"],
            token_ids=tokens(row) if row["status"] == "ok" else (),
            reference=references.get(row["prompt_id"]) if references else None,
            answered=row["status"] == "ok",
            stopped=row["finish_reason"] == "stop",
        )
        for row in rows
    ]


def grades(
    grader: Grader,
    items: Sequence[Item],
    *,
    journal: Journal,
    known: Mapping[str, Row] | None = None,
    distributions: bool = False,
) -> list[Row]:
    """Grades of the items: rows of `schemas.GRADES`.

    known: grades of a lower coverage by key, taken as they are. distributions: whether rows keep the distributions over scores;
    the journal always keeps them, so that asking for them later costs nothing.
    """
    keys = [digest(grader.identity(item)) for item in items]
    by_key = dict(zip(keys, items, strict=True))
    labelled_before = {key: row for key, row in (known or {}).items() if key in by_key}
    todo = {key: item for key, item in by_key.items() if key not in labelled_before}

    def work(missing: Mapping[str, Item]) -> Iterator[FinishedItem]:
        for key, grade in grader.grade(missing):
            yield FinishedItem(key, _graded(grade), grade.prompt_tokens, grade.response_tokens)

    finished = complete(journal, todo, work, unit="grades") | labelled_before
    return _grade_rows(items, keys, finished, distributions)


def hosted_grades(
    judge: HostedJudge | HostedLikelihood,
    items: Sequence[Item],
    ask: Ask,
    *,
    known: Mapping[str, Row] | None = None,
    distributions: bool = False,
) -> list[Row]:
    """The same by a judge behind an API, whose journal keeps replies: grades are read from the replies each time."""
    keys = [digest(judge.identity(item)) for item in items]
    by_key = dict(zip(keys, items, strict=True))
    labelled_before = {key: row for key, row in (known or {}).items() if key in by_key}
    todo = {key: item for key, item in by_key.items() if key not in labelled_before}
    graded = zip(todo, judge.grade(list(todo.values()), ask), strict=True)
    return _grade_rows(items, keys, {key: _graded(grade) for key, grade in graded} | labelled_before, distributions)


SERVED = ("model", "system_fingerprint")  # which version behind an API answered


def _grade_rows(
    items: Sequence[Item], keys: Sequence[str], finished: Mapping[str, Row], distributions: bool
) -> list[Row]:
    """Rows of `schemas.GRADES` from records of grades by key."""
    rows = [
        {"prompt_id": item.prompt_id, "draw_idx": item.draw_idx}
        | {field: finished[key][field] for field in ("score", "reason", "reply")}
        | {"distribution": finished[key].get("distribution") if distributions else None}
        | {"choice_mass": finished[key].get("choice_mass")}
        | {name: finished[key].get(name) for name in SERVED}
        | {"item": key}
        for key, item in zip(keys, items, strict=True)
    ]
    _log_choice_mass([row["choice_mass"] for row in rows if row["choice_mass"] is not None])
    warn_missing("ok" if row["score"] is not None else row["reason"] for row in rows)
    return rows


def _graded(grade: Grade) -> Row:
    """A grade as a journal record; what only some graders have is there for them alone."""
    record: Row = {"score": grade.score, "reason": grade.reason, "reply": grade.reply}
    if grade.choice_mass is not None:
        record["choice_mass"] = grade.choice_mass
    if grade.choice_mass is not None or grade.distribution is not None:
        record["distribution"] = None if grade.distribution is None else [list(pair) for pair in grade.distribution]
    return record | {name: getattr(grade, name) for name in SERVED if getattr(grade, name) is not None}


def _log_choice_mass(masses: Sequence[float]) -> None:
    """Log the probability that the judge's choices had among all tokens."""
    if masses:
        median, least = statistics.median(masses), min(masses)
        log.info("total probability of the judge's answers: median %.2g, minimum %.2g", median, least)


def labelled(rows: Sequence[Row], *, coverage: float, start: int, draws: int) -> list[Row]:
    """Rows of a shard that the oracle labels at a coverage; `start` is the position of its first prompt in the random order.

    The rows of a prompt stand together, in the order of their draws.
    """
    return [
        row
        for index, row in enumerate(rows)
        if has_label(start + index // draws, coverage, draw=index % draws, draws=draws)
    ]
