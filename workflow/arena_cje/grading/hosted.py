"""Judges and oracles behind APIs: an answer in words, a choice read off the first token's probabilities, a likelihood.

    structured   score = mean_s (number_s - low) / (high - low),   number_s read from answer s to the question
    choices      mass_k = sum of p(token) over tokens that mean answer_k, among the likeliest that the API gives
    likelihood   score = exp(mean_t log p(token_t | rubric's system prompt, prompt, earlier tokens)), echoed (`hosted.score`)

A grader here is a function from items to grades, given `ask`, which turns requests into replies. An answer that cannot be used
(unreadable, cut, declined) is asked for once more, in a firmer question; after that the grade has no score but the reason and
the reply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from arena_cje.calls.request import Ask, Reply, Request
from arena_cje.errors import UserError
from arena_cje.grading import grades, quoting
from arena_cje.grading.grades import Grade, Item
from arena_cje.grading.rubrics import likelihood
from arena_cje.hosted import echo
from arena_cje.hosted import writer as hosted_writer
from arena_cje.hosted.echo import PromptResponse
from arena_cje.hosted.writer import Writer, chat_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.config.records.grading import Grading
    from arena_cje.grading.rubrics.base import Rubric
    from arena_cje.grading.rubrics.question import Question
    from arena_cje.hosted.template import Template

# Raise when the same replies would give other grades.
VERSION = 2

TRIED = 3  # answers without text in a row that show that a server gives no log probabilities

# Why a response that is read for its likelihood has none.
UNSCORED = {
    "empty": grades.NO_RESPONSE,
    "too_long": grades.TOO_LONG,
    "not_finite": grades.NOT_FINITE,
    "control_tokens": grades.CONTROL_TOKENS,
    "not_echoed": grades.NOT_ECHOED,
    "refused": grades.DECLINED,
    "unreadable": grades.UNREADABLE,
}


@dataclass(frozen=True)
class HostedJudge:
    """A model behind an API that answers a rubric's question. Made by `grader`."""

    endpoint: Endpoint
    model: str
    rubric: Question
    system_prompt: str | None
    temperature: float | None  # None is not sent
    max_tokens: int
    extra: Mapping[str, Any]

    @classmethod
    def of(cls, endpoint: Endpoint, block: Grading, rubric: Question, system_prompt: str | None) -> HostedJudge:
        """The judge that a block of the configuration describes."""
        temperature, max_tokens = rubric.answer_limits(block)
        return cls(endpoint, str(block.model), rubric, system_prompt, temperature, max_tokens, block.extra)

    def request(self, item: Item, sample: int = 0, *, again: bool = False) -> Request:
        """One question about a response; `again`: the second, firmer one. Several samples differ by their seed."""
        texts = [quoting.break_control_tokens(text) for text in (item.prompt, item.response)]
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        # From 1: some servers take 0 for no seed.
        is_sampled = self.rubric.n_samples > 1
        seed, sample_key = hosted_writer.seed_or_sample(self.endpoint, sample + 1) if is_sampled else ({}, None)
        body = chat_body(
            self.endpoint,
            model=self.model,
            messages=[*system, {"role": "user", "content": self.rubric.question(*texts, again=again)}],
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            **seed,
            extra={**self.rubric.request_parameters(self.endpoint), **self.extra},
        )
        return Request("chat", body, sample_key)

    def identity(self, item: Item) -> dict[str, Any]:
        """All that determines a grade: the question, the second one where it is needed, and how answers are read."""
        samples = range(self.rubric.n_samples)
        requests = [self.request(item, sample, again=again) for again in (False, True) for sample in samples]
        return {
            "judge": VERSION,
            "requests": [request.key(self.endpoint) for request in requests],
            "reading": self.rubric.reading,
            "answered": item.answered,
        }

    def read(self, reply: Reply) -> Grade:
        """The grade that a reply gives. An answer that began and did not end is cut, whoever ended it."""
        text = reply.text or None
        if reply.error == "too_long":
            grade = Grade(None, grades.TOO_LONG)
        elif reply.ending == "broken off" or (reply.ending == "declined" and text):
            grade = Grade(None, grades.CUT, text)
        elif reply.error == "refused":
            grade = Grade(None, grades.DECLINED, text)
        elif reply.error == "unreadable":
            grade = Grade(None, grades.UNREADABLE, text)
        else:
            grade = self.rubric.read_reply(reply)
        return replace(grade, model=reply.model, system_fingerprint=reply.system_fingerprint)

    def grade(self, items: Sequence[Item], ask: Ask) -> list[Grade]:
        """Grades of the items, in their order."""
        samples = range(self.rubric.n_samples)
        places = [(k, sample) for k, item in enumerate(items) if item.answered for sample in samples]
        if self.rubric.TASK == "chooses" and places:
            self._check_logprobs([items[k] for k, _ in places[:TRIED]], ask)
        answers = self._answers(items, places, ask, again=False)
        unread = [place for place in places if grades.unread(answers[place])]
        second = self._answers(items, unread, ask, again=True)
        # Where the longer question no longer fits, the reason of the first answer is the more useful one.
        answers |= {place: answer for place, answer in second.items() if answer.reason != grades.TOO_LONG}
        return [
            grades.combined([answers[k, sample] for sample in samples])
            if item.answered
            else Grade(None, grades.NO_RESPONSE)
            for k, item in enumerate(items)
        ]

    def _answers(
        self, items: Sequence[Item], places: Sequence[tuple[int, int]], ask: Ask, *, again: bool
    ) -> dict[tuple[int, int], Grade]:
        """Grades read from the replies, by (place of the item, sample)."""
        if not places:
            return {}
        replies = ask([self.request(items[k], sample, again=again) for k, sample in places])
        return {place: self.read(reply) for place, reply in zip(places, replies, strict=True)}

    def _check_logprobs(self, first: Sequence[Item], ask: Ask) -> None:
        """Stop at the first reply, before the rest is paid for, where the server gives no log probabilities.

        A reply without text has none to give: one such reply proves nothing, and several do.
        """
        for item in first:
            (reply,) = ask([self.request(item)])
            if reply.error is not None or reply.top_logprobs:
                return
            if reply.text:
                break
        raise UserError(
            f"provider {self.endpoint.provider!r}, model {self.model!r}: its answers contain no log probabilities, which a "
            "rubric of kind 'choices' needs; choose a rubric of kind 'structured' (such as rating.yaml)"
        )


@dataclass(frozen=True)
class HostedLikelihood:
    """A model behind an API that reads a likelihood rubric."""

    writer: Writer

    @property
    def endpoint(self) -> Endpoint:
        return self.writer.endpoint

    def identity(self, item: Item) -> dict[str, Any]:
        request = echo.echo_request(self.writer, _answer(item))
        read = {"judge": VERSION, "score": hosted_writer.VERSION, "request": request.key(self.endpoint)}
        return {**read, "answered": item.answered}

    def grade(self, items: Sequence[Item], ask: Ask) -> list[Grade]:
        """Grades of the items, in their order."""
        answered = [item for item in items if item.answered]
        scores = iter(echo.response_logprobs(ask, self.writer, [_answer(item) for item in answered]))
        return [_likely(next(scores)) if item.answered else Grade(None, grades.NO_RESPONSE) for item in items]


def _answer(item: Item) -> PromptResponse:
    return PromptResponse(item.prompt, item.response, item.stopped)


def _likely(scored: echo.ResponseLogprobs) -> Grade:
    if scored.status != "ok":
        return Grade(None, UNSCORED[scored.status])
    return Grade(likelihood.score(scored.token_logprobs))


def grader(
    endpoint: Endpoint, block: Grading, rubric: Rubric, system_prompt: str | None, template: Template | None
) -> HostedJudge | HostedLikelihood:
    """The grader that a block of the configuration and its rubric describe."""
    if rubric.SCORES_TEXT:
        return HostedLikelihood(Writer(endpoint, str(block.model), system_prompt, template, extra=block.extra))
    return HostedJudge.of(endpoint, block, rubric, system_prompt)
