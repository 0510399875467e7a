"""The stages that cost money: responses and log probabilities through an API, from input rows to output rows.

The journal keeps replies, and rows are read from the replies: a change of the reading pays for nothing again.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from arena_cje.calls.request import Ask, Reply
from arena_cje.hosted import echo
from arena_cje.hosted import writer as hosted_writer
from arena_cje.hosted.echo import PromptResponse
from arena_cje.stages.local import warn_missing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.hosted.writer import Writer

log = logging.getLogger(__name__)

Row = dict[str, Any]


def responses(ask: Ask, writer: Writer, prompts: Sequence[Row], *, policy: str, draws: int, seed: int) -> list[Row]:
    """Responses of one policy to the prompts, `draws` of each: rows of `schemas.RESPONSES`."""
    places = [
        (row, draw, hosted_writer.seed_of(seed, policy, row["prompt_id"], draw))
        for row in prompts
        for draw in range(draws)
    ]
    valid_places = [place for place in places if writer.accepts(place[0]["prompt"])]
    requests = [writer.request(row["prompt"], response_seed) for row, _, response_seed in valid_places]
    replies = {
        (row["prompt_id"], draw): (request.key(writer.endpoint), reply)
        for (row, draw, _), request, reply in zip(valid_places, requests, ask(requests), strict=True)
    }
    rows = [
        _response(row, draw, response_seed, policy, *replies.get((row["prompt_id"], draw), (None, None)))
        for row, draw, response_seed in places
    ]
    warn_missing(row["status"] for row in rows)
    if n_cut := sum(row["finish_reason"] == "length" and not row["response"] for row in rows):
        log.warning(
            "%d of %d responses are empty, cut at `max_tokens` before any text (a reasoning model?); they are judged as "
            "empty responses; raise `policies.%s.max_tokens` if users get more than that",
            n_cut,
            len(rows),
            policy,
        )
    return rows


def _response(row: Row, draw: int, seed: int, policy: str, key: str | None, reply: Reply | None) -> Row:
    status = "control_tokens" if reply is None else reply.error or "ok"
    content = reply or Reply()
    cut = content.ending == "cut"
    # Half a character at the cut is no text: sent back to be scored, it would be tokens that nobody drew.
    text = content.text.rstrip(echo.REPLACEMENT_CHARACTER) if cut else content.text
    return {
        "prompt_id": row["prompt_id"],
        "policy": policy,
        "draw_idx": draw,
        "prompt": row["prompt"],
        "response": text if status == "ok" else "",
        "token_ids": None,
        "finish_reason": ("length" if cut else "stop") if status == "ok" else None,
        "status": status,
        "seed": seed,
        "model_sha256": None,
        "model": content.model,
        "system_fingerprint": content.system_fingerprint,
        "item": key or "",
    }


def logprobs(ask: Ask, writer: Writer, rows: Sequence[Row], *, samplings: Sequence[Mapping[str, float]]) -> list[Row]:
    """Log probabilities of responses in one scoring context: a row for each response and sampling.

    An API gives those at temperature 1 whatever the sampling; `config.scoring` has the policies for which they can be used.
    """
    answered = [row for row in rows if row["status"] == "ok"]
    answers = [PromptResponse(row["prompt"], row["response"], row["finish_reason"] == "stop") for row in answered]
    scored = dict(
        zip((row["prompt_id"] for row in answered), echo.response_logprobs(ask, writer, answers), strict=True)
    )
    no_response = echo.ResponseLogprobs((), 0, "empty")
    scores = [
        {"prompt_id": row["prompt_id"], **sampling, **_score(scored.get(row["prompt_id"], no_response))}
        for row in rows
        for sampling in samplings
    ]
    spanning = sum(one.n_boundary for one in scored.values())
    if spanning:
        log.info("%d of %d responses begin inside the last token of the prompt", spanning, len(rows))
    warn_missing(scored.get(row["prompt_id"], no_response).status for row in rows)
    return scores


def _score(scored: echo.ResponseLogprobs) -> Row:
    values = list(scored.token_logprobs)
    return asdict(scored) | {
        "token_logprobs": values,
        "logprob": math.fsum(values) if scored.status == "ok" else None,
        "n_tokens": len(values),
    }
