"""Does every configured model answer, and can it do what it is used for? Each is asked for a few tokens,
with the parameters of its requests in the run.

    writes    a policy, or a judge that answers in words: there is a reply
    chooses   a judge that is read from its probabilities: the reply comes with log probabilities
    scores    a policy whose log probabilities are needed: text that the server has just sampled, sent back to be scored, has
              the log probabilities that it was sampled with, to 0.05 nats a token

The last finds a server that pairs tokens with the probabilities of their neighbours: its numbers look like any others, and
every weight made of them is wrong. What is drawn are the likeliest tokens, whose numbers move least with rounding; where
they disagree, others at temperature 1, since some servers report probabilities after the temperature.
"""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.calls.request import Ask, Reply, Request
from arena_cje.config.records.values import LOCAL
from arena_cje.errors import UserError, printable
from arena_cje.hosted import echo
from arena_cje.hosted import writer as hosted_writer
from arena_cje.hosted.writer import Writer
from arena_cje.money import estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.config.records import Config
    from arena_cje.config.records.grading import Grading
    from arena_cje.config.records.models import Model
    from arena_cje.money.estimate import Texts

PROMPT = "Name the capital of France."
SAME = 0.05  # nats a token: servers round, and batches of other sizes move a number a little
DRAWN = 4  # tokens that are drawn and sent back
JUDGED = 16  # tokens of an answer in a form: some servers call it an error when they do not suffice for the form
DRAWS = (
    (0.0, 0),
    (1.0, 1),
    (1.0, 2),
    (1.0, 3),
)  # temperature and seed; of those that can be sent back, two at most are
ADVICE = (
    "; set `completions: false` for this provider (its policies then take part in `direct` only), or use another server"
)
PATIENCE = 60.0  # seconds for one answer, and between the attempts together
ATTEMPTS = 3
SIDE_BY_SIDE = 8


@dataclass(frozen=True)
class Finding:
    """The use of one model, and the result of its trial."""

    model: str
    where: str  # provider, or file
    use: str
    users: tuple[str, ...]
    ok: bool
    answer: str


@dataclass(frozen=True)
class Trial:
    """A trial of one model for one user of it."""

    endpoint: Endpoint
    model: str
    what: str  # "writes", "chooses", "scores"
    form: str | None  # template, if text is sent
    check: Callable[[Ask], str]  # describes the result, or raises
    user: str
    parameters: tuple[str, ...] = ()  # names of those that are sent


def trials(config: Config, texts: Texts) -> list[Trial]:
    """The trials of models behind APIs, one for each user."""
    if config.logged_data is not None:
        return []
    hosted_ones = [(place, block) for place, block in config.model_blocks.items() if block.hosted]
    return [
        _of_policy(config, place.removeprefix("policies."), texts)
        if place.startswith("policies.")
        else _of_grader(config, place, block, texts)
        for place, block in hosted_ones
    ]


def _of_policy(config: Config, name: str, texts: Texts) -> Trial:
    policy = config.policies[name]
    system_prompt = texts.system_prompts[policy.system_prompt] if policy.system_prompt else None
    writer = replace(
        hosted_writer.writer(config, policy, system_prompt, None),
        template=texts.templates[policy.template] if policy.template else None,
    )
    scores = config.has_logprobs(name)
    check = (lambda ask: _scores(ask, writer)) if scores else (lambda ask: _writes(ask, writer))
    what = "scores" if scores else "writes"
    parameters = tuple(writer.request(PROMPT, seed=1).body)
    return Trial(writer.endpoint, policy.model, what, policy.template, check, f"policies.{name}", parameters)


def _of_grader(config: Config, name: str, grader: Grading, texts: Texts) -> Trial:
    endpoint = config.endpoint(grader)
    rubric = texts.rubrics[grader.rubric]
    if rubric.SCORES_TEXT:
        system_prompt = texts.system_prompts[rubric.system_prompt]
        reader = Writer(
            endpoint, str(grader.model), system_prompt, texts.templates[grader.template], extra=grader.extra
        )
        return Trial(endpoint, reader.model, "scores", grader.template, lambda ask: _scores(ask, reader), name)
    form, task = rubric.request_parameters(endpoint), rubric.TASK
    seed, _ = hosted_writer.seed_or_sample(endpoint, 1) if rubric.n_samples > 1 else ({}, None)
    body = hosted_writer.chat_body(
        endpoint,
        model=str(grader.model),
        messages=hosted_writer.messages(None, PROMPT),
        max_tokens=JUDGED if task == "writes" and form else 1,
        temperature=grader.temperature,
        **seed,
        extra={**form, **grader.extra},
    )
    request = Request("chat", body)
    return Trial(endpoint, str(grader.model), task, None, lambda ask: _answers(ask, request, task), name, tuple(body))


def _answers(ask: Ask, request: Request, what: str) -> str:
    """Is there a reply, with log probabilities where a judge is read from them?"""
    reply = _replied(ask, request)
    if what == "chooses" and not reply.top_logprobs:
        raise UserError(
            "its replies contain no log probabilities, which a rubric of kind `choices` needs; use a rubric of kind "
            "`structured`, or a server that returns them"
        )
    return _version(reply)


def _writes(ask: Ask, writer: Writer) -> str:
    return _version(_replied(ask, replace(writer, max_tokens=1).request(PROMPT, seed=1)))


def _scores(ask: Ask, writer: Writer) -> str:
    """Whether sampled text, sent back to be scored, has the log probabilities with which it was sampled."""
    wrong = []
    for temperature, seed in DRAWS:
        reply = _sample(ask, writer, temperature, seed)
        text, sample_logprobs = _whole_tokens(reply)
        if not text:
            continue
        (scored,) = echo.response_logprobs(ask, writer, [echo.PromptResponse(PROMPT, text, stopped=False)])
        if scored.status != "ok":
            raise UserError(f"it does not score given text (status {scored.status}){ADVICE}")
        apart = _logprob_gap(sample_logprobs, scored.token_logprobs)
        if apart <= SAME:
            return f"{_version(reply)}, scores given text to {apart:.2g} nats a token"
        wrong.append(
            f"its log probabilities of given text are inconsistent: {text!r} had log probabilities {_listed(sample_logprobs)} "
            f"when it was drawn and {_listed(scored.token_logprobs)} when it was scored{ADVICE}"
        )
        if len(wrong) == 2:
            break
    raise UserError(wrong[0] if wrong else f"its reply has no text that could be scored ({reply.text!r})")


def _sample(ask: Ask, writer: Writer, temperature: float, seed: int) -> Reply:
    """A few tokens of the server's own with their log probabilities."""
    request = replace(writer, max_tokens=DRAWN, temperature=temperature, top_p=1.0).request(PROMPT, seed)
    reply = _replied(ask, Request(request.kind, {**request.body, "logprobs": 1}))
    if reply.text and (not reply.token_logprobs or None in reply.token_logprobs):
        raise UserError(f"it generates text without log probabilities, so it cannot score given text{ADVICE}")
    return reply


def _whole_tokens(reply: Reply) -> tuple[str, list[float]]:
    """The text of a reply, as far as it can be sent back, with its log probabilities."""
    text, values = "", []
    for token, value in zip(reply.tokens, reply.token_logprobs, strict=True):
        if not token or "\ufffd" in token or not reply.text.startswith(text + token):
            break  # it is half a character, or not written out
        text, values = text + token, [*values, value]
    return text, values


def _logprob_gap(sample_logprobs: Sequence[float], score_logprobs: Sequence[float]) -> float:
    """Largest difference of a token's two log probabilities, nats; with other tokens, of their sums, per sampled token."""
    if len(sample_logprobs) == len(score_logprobs):
        return max(abs(one - other) for one, other in zip(sample_logprobs, score_logprobs, strict=True))
    return abs(math.fsum(sample_logprobs) - math.fsum(score_logprobs)) / len(sample_logprobs)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _replied(ask: Ask, request: Request) -> Reply:
    (reply,) = ask([request])
    if reply.error == "unreadable":
        raise UserError("its replies cannot be read; look at what the server sends, or use another server")
    if reply.error is not None:
        raise UserError(f"it declines a simple test question ({reply.error.replace('_', ' ')})")
    return reply


def _version(reply: Reply) -> str:
    return reply.model or "version unknown"


def check(things: Sequence[Trial]) -> list[Finding]:
    """The results of the trials, made at the same time; equal trials of several users are made once."""
    groups: dict[Any, list[Trial]] = {}
    for one in things:
        # Another system prompt or another value of a parameter asks nothing else of the server.
        who = (one.endpoint.identity.items(), one.endpoint.api_key_env, one.model, one.what, one.form, one.parameters)
        groups.setdefault(str(who), []).append(one)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return list(pool.map(_tried, groups.values()))


def _tried(group: Sequence[Trial]) -> Finding:
    first = group[0]
    began = time.monotonic()
    try:
        answer, ok = first.check(lambda requests: asyncio.run(_asked(first.endpoint, requests))), True
        answer += f", {1000 * (time.monotonic() - began):.0f} ms"
    except UserError as error:
        answer, ok = str(error), False
    users = tuple(one.user for one in group)
    return Finding(first.model, first.endpoint.provider, first.what, users, ok, answer)


async def _asked(where: Endpoint, requests: Sequence[Request]) -> list[Reply]:
    """Replies one after another; a failure that may pass is tried a few times."""
    from arena_cje.calls.client import Client

    async with Client(replace(where, timeout=min(where.timeout, PATIENCE))) as client:
        return [await _patiently(client, request) for request in requests]


async def _patiently(client: Any, request: Request) -> Reply:
    from arena_cje.calls.errors import TransientError

    for attempt in range(ATTEMPTS):
        try:
            return await client.send(request)
        except TransientError as error:
            wait = error.retry_after or 2.0**attempt
            if attempt == ATTEMPTS - 1 or error.kind == "timeout" or wait > PATIENCE:
                where = client.endpoint.base_url or f"the address of {client.endpoint.api}"
                raise UserError(f"no answer from {where}: {error}") from None
            await asyncio.sleep(wait)
    raise AssertionError("unreachable")


def local(config: Config, resources: Path, *, results: Path = Path("results")) -> list[Finding]:
    """Models that run in the jobs: is the file there, or can it be fetched?"""
    users: dict[str, list[str]] = {}
    if config.logged_data is None:
        for user, block in config.model_blocks.items():
            if block.provider == LOCAL and block.model in config.models:
                users.setdefault(block.model, []).append(user)
    return [_local(name, config.models[name], tuple(who), resources, results) for name, who in users.items()]


def _local(name: str, model: Model, users: tuple[str, ...], resources: Path, results: Path) -> Finding:
    path = Path(model.path) if model.path else resources / "models" / str(model.file)
    try:
        answer, ok = _file(path, model, resources, results / "models" / f"{name}.json"), True
    except UserError as error:
        answer, ok = str(error), False
    return Finding(name, path.name, "file", users, ok, answer)


def _file(path: Path, model: Model, resources: Path, record: Path) -> str:
    from arena_cje.llama import fetch, gguf
    from arena_cje.stages.jobs import recorded

    if model.file and not path.exists():
        fetch.read_entry(model.file, resources / "models" / "MODELS.yaml")
        return "not downloaded yet; downloaded on first use"
    gguf.check_magic(path)
    size = f"{gguf.size(path) / 1e6:,.0f} MB"
    if not record.exists():
        return f"{size}; its hash is recorded on first use"
    sha256 = recorded(record, "sha256")
    if model.sha256 not in (None, sha256):
        raise UserError(f"its recorded sha256 is {sha256}, expected {model.sha256}; see `models` in the configuration")
    return f"{size}, sha256 {sha256[:12]}…"


def table(findings: Sequence[Finding]) -> str:
    """All findings, those that failed marked."""
    if not findings:
        return "No model is used, because `logged_data` is set."
    rows = [("", "model", "at", "use", "needed by", "answer")]
    for one in findings:
        by = one.users[0] + (f" and {len(one.users) - 1} more" if len(one.users) > 1 else "")
        rows.append(("ok" if one.ok else "NO", one.model.rsplit("/", 1)[-1], one.where, one.use, by, one.answer))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows)
    return printable("\n".join(lines))


def run(config: Config, pool: str | None, resources: str) -> list[Finding]:
    """The results of all trials of a configuration."""
    texts = estimate.load_texts(config, pool and Path(pool), Path(resources))
    return [*local(config, Path(resources)), *check(trials(config, texts))]
