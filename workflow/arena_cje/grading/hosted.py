"""Judges and oracles behind APIs: an answer in words, a choice read off the first token's probabilities, a likelihood.

    structured   score = mean_s (number_s - low) / (high - low),   number_s read from answer s to the question
    choices      mass_k = sum of p(token) over tokens that say answer_k, among the likeliest the API tells
    likelihood   score = exp(mean_t log p(token_t | rubric's system prompt, prompt, earlier tokens)), echoed (`hosted.score`)

All is pure over `ask`: from requests to replies. An answer that cannot be used (unreadable, cut, declined) is asked for once
more in firmer words, a request of its own; then there is no grade, with the reason and the reply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.calls import apis
from arena_cje.calls.request import Ask, Reply, Request
from arena_cje.errors import UserError
from arena_cje.grading import grades, quoting
from arena_cje.grading.grades import Grade, Item
from arena_cje.grading.rubrics import Rubric, likelihood, structured
from arena_cje.grading.rubrics.choices import Choices
from arena_cje.grading.rubrics.likelihood import Likelihood
from arena_cje.grading.rubrics.structured import Structured
from arena_cje.hosted import echo
from arena_cje.hosted import writer as hosted_writer
from arena_cje.hosted.echo import Answer
from arena_cje.hosted.writer import Writer, chat_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.config.records import Grading
    from arena_cje.hosted.template import Template

# Raise when the same replies would give other grades.
VERSION = 1

# Probability of all the answers together; with less the model did not take the question for one. Higher than for local
# models, which tell the probability of any token: what is not among the likeliest counts as 0 here.
FLOOR = 0.01
TRIED = 3  # answers without text in a row that show that a server tells no log probabilities
NO_CHOICE = f"the rubric's answers have probability below {FLOOR:g} together"
NO_LOGPROBS = "the answer came without log probabilities"

# Why a response that is read for its likelihood has none.
UNSCORED = {
    "empty": grades.NO_RESPONSE,
    "too_long": grades.TOO_LONG,
    "not_finite": grades.NOT_FINITE,
    "control_tokens": grades.CONTROL_TOKENS,
    "not_echoed": grades.NOT_ECHOED,
    "refused": grades.DECLINED,
}


@dataclass(frozen=True)
class HostedJudge:
    """Who is asked, by which rubric and how. Made by `of`."""

    endpoint: Endpoint
    model: str
    rubric: Choices | Structured
    system_prompt: str | None
    temperature: float | None  # None is not sent
    max_tokens: int
    extra: Mapping[str, Any]

    @classmethod
    def of(
        cls, endpoint: Endpoint, block: Grading, rubric: Choices | Structured, system_prompt: str | None
    ) -> HostedJudge:
        """The judge that a block of the configuration describes."""
        if isinstance(rubric, Structured):
            temperature, max_tokens = structured.temperature_of(rubric, block), block.max_tokens
        else:
            temperature, max_tokens = block.temperature, 1
        return cls(endpoint, str(block.model), rubric, system_prompt, temperature, max_tokens, block.extra)

    @property
    def n_samples(self) -> int:
        """How many answers make a grade."""
        return self.rubric.samples if isinstance(self.rubric, Structured) else 1

    def request(self, item: Item, sample: int = 0, *, again: bool = False) -> Request:
        """One question about a response; `again`: the second, firmer one. Several samples differ by their seed."""
        shown = [quoting.disarmed(text) for text in (item.prompt, item.response)]
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        body = chat_body(
            self.endpoint,
            model=self.model,
            messages=[*system, {"role": "user", "content": self.rubric.question(*shown, again=again)}],
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            # From 1: some servers take 0 for no seed.
            seed=sample + 1 if self.n_samples > 1 else None,
            extra={**self._form(), **self.extra},
        )
        return Request("chat", body)

    def identity(self, item: Item) -> dict[str, Any]:
        """All that determines a grade: what is asked, twice where it must be, and how the answers are read."""
        asked = [self.request(item, sample, again=again) for again in (False, True) for sample in range(self.n_samples)]
        reading = self.rubric.scale if isinstance(self.rubric, Structured) else self.rubric.choices
        return {
            "judge": VERSION,
            "requests": [request.key(self.endpoint) for request in asked],
            "reading": reading,
            "answered": item.answered,
        }

    def read(self, reply: Reply) -> Grade:
        """The grade that a reply gives."""
        if reply.error == "too_long":
            grade = Grade(None, grades.TOO_LONG)
        elif reply.error == "refused":
            grade = Grade(None, grades.DECLINED, reply.text or None)
        elif isinstance(self.rubric, Structured):
            grade = self.rubric.read(reply.text, cut=reply.finish_reason == "length")
        else:
            grade = _chosen(self.rubric, reply)
        return replace(grade, model=reply.model, system_fingerprint=reply.system_fingerprint)

    def grade(self, items: Sequence[Item], ask: Ask) -> list[Grade]:
        """Grades of the items, in their order."""
        places = [(k, sample) for k, item in enumerate(items) if item.answered for sample in range(self.n_samples)]
        if isinstance(self.rubric, Choices) and places:
            _check_logprobs(self, [items[k] for k, _ in places[:TRIED]], ask)
        answers = _asked(self, items, places, ask, again=False)
        unread = [place for place in places if grades.unread(answers[place])]
        second = _asked(self, items, unread, ask, again=True)
        # Where the longer question no longer fits, the first answer says more.
        answers |= {place: answer for place, answer in second.items() if answer.reason != grades.TOO_LONG}
        return [
            grades.combined([answers[k, sample] for sample in range(self.n_samples)])
            if item.answered
            else Grade(None, grades.NO_RESPONSE)
            for k, item in enumerate(items)
        ]

    def _form(self) -> dict[str, Any]:
        """Parameters that say what kind of answer is wanted."""
        if isinstance(self.rubric, Choices):
            return {"logprobs": True, "top_logprobs": apis.get(self.endpoint.api).TOP_LOGPROBS}
        schema = self.rubric.schema
        forms = {
            "schema": {"type": "json_schema", "json_schema": {"name": "grade", "strict": True, "schema": schema}},
            "object": {"type": "json_object", "schema": schema},
        }
        kind = self.endpoint.json_reply
        return {"response_format": forms[kind]} if kind in forms else {}


@dataclass(frozen=True)
class HostedLikelihood:
    """A model behind an API that reads a likelihood rubric."""

    writer: Writer

    @property
    def endpoint(self) -> Endpoint:
        return self.writer.endpoint

    def identity(self, item: Item) -> dict[str, Any]:
        request = echo.echo(self.writer, _answer(item))
        read = {"judge": VERSION, "score": hosted_writer.VERSION, "request": request.key(self.endpoint)}
        return {**read, "answered": item.answered}

    def grade(self, items: Sequence[Item], ask: Ask) -> list[Grade]:
        """Grades of the items, in their order."""
        answered = [item for item in items if item.answered]
        scores = iter(echo.score(ask, self.writer, [_answer(item) for item in answered]))
        return [_likely(next(scores)) if item.answered else Grade(None, grades.NO_RESPONSE) for item in items]


def _answer(item: Item) -> Answer:
    return Answer(item.prompt, item.response, item.stopped)


def _likely(scored: echo.Scored) -> Grade:
    if scored.status != "ok":
        return Grade(None, UNSCORED[scored.status])
    return Grade(likelihood.score(scored.token_logprobs))


def of(
    endpoint: Endpoint, block: Grading, rubric: Rubric, system_prompt: str | None, template: Template | None
) -> HostedJudge | HostedLikelihood:
    """The judge that a block of the configuration and its rubric describe."""
    if isinstance(rubric, Likelihood):
        return HostedLikelihood(Writer(endpoint, str(block.model), system_prompt, template, extra=block.extra))
    return HostedJudge.of(endpoint, block, rubric, system_prompt)


def _chosen(rubric: Choices, reply: Reply) -> Grade:
    """The grade by the likeliest first tokens; tokens that differ by the spaces around them say the same."""
    if not reply.top_logprobs:
        return Grade(None, NO_LOGPROBS, reply.text)
    mass = dict.fromkeys(map(str.strip, rubric.choices), 0.0)
    for token, logprob in reply.top_logprobs[0].items():
        if token.strip() in mass:
            mass[token.strip()] += float(np.exp(logprob))
    choice_mass = min(1.0, sum(mass.values()))
    if choice_mass < FLOOR:
        return Grade(None, NO_CHOICE, reply.text, choice_mass=choice_mass)
    score_of = {text.strip(): score for text, score in rubric.choices.items()}
    told = {text: share for text, share in mass.items() if share > 0}
    scores = np.array([score_of[text] for text in told])
    pairs = grades.distribution(np.log(list(told.values())), scores)
    return Grade(grades.mean_score(pairs), None, reply.text, pairs, choice_mass)


def _asked(
    judge: HostedJudge, items: Sequence[Item], places: Sequence[tuple[int, int]], ask: Ask, *, again: bool
) -> dict[tuple[int, int], Grade]:
    """What is read from the replies, by place of the item and sample."""
    if not places:
        return {}
    replies = ask([judge.request(items[k], sample, again=again) for k, sample in places])
    return {place: judge.read(reply) for place, reply in zip(places, replies, strict=True)}


def _check_logprobs(judge: HostedJudge, first: Sequence[Item], ask: Ask) -> None:
    """Stop at the first reply, before the rest is paid for, where the server tells no log probabilities.

    An answer without text has none to tell: it proves nothing, and several do.
    """
    for item in first:
        (reply,) = ask([judge.request(item)])
        if reply.error is not None or reply.top_logprobs:
            return
        if reply.text:
            break
    raise UserError(
        f"provider {judge.endpoint.provider!r}, model {judge.model!r}: its answers come without log probabilities, from "
        "which a rubric of kind 'choices' is read; choose a rubric of kind 'structured' (such as rating.yaml)"
    )
