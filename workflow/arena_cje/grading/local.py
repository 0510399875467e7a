"""Judges through llama.cpp: the likelihood of a response under a rubric's system prompt, a choice, or an answer in words.

    likelihood   score = exp(mean_t log p(token_t | rubric's system prompt, prompt, earlier tokens))   in [0, 1]
    choices      mass_k = p(answer_k | question) / sum_j p(answer_j | question),   score = sum_k mass_k score_k
    structured   score = mean_s (number_s - low) / (high - low),   number_s read from answer s to the question

The first is the geometric mean of the token probabilities at the rubric's temperature, without a nucleus. The second is
the model's distribution of the next token after the rubric's question, read off one forward pass: nothing is sampled and no
reply can be misread. The third generates an answer; one that cannot be read is asked for once more, in a firmer question.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.errors import UserError
from arena_cje.grading import grades, quoting
from arena_cje.grading.grades import Grade, Grader, Item
from arena_cje.grading.rubrics import likelihood
from arena_cje.grading.rubrics.choices import Choices
from arena_cje.grading.rubrics.likelihood import Likelihood
from arena_cje.grading.rubrics.structured import Structured
from arena_cje.llama import chat, generator, scorer
from arena_cje.llama.distribution import Sampling, log_probs, stream
from arena_cje.llama.model import Context, Model
from arena_cje.llama.prefill import BLOCK, Reader, n_common, usable
from arena_cje.provenance import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arena_cje.config.records import Config
    from arena_cje.config.records.grading import Grading
    from arena_cje.grading.rubrics.base import Rubric

# Probability of all the answers together; with less the model did not take the question for one, and the
# difference of the answers is in the far tail of its distribution.
FLOOR = 1e-6

UNSCORED = {"empty": grades.NO_RESPONSE, "too_long": grades.TOO_LONG, "not_finite": grades.NOT_FINITE}
NO_CHOICE = f"the rubric's answers have a total probability below {FLOOR:g}"


def grader(
    model: Model,
    model_sha256: str,
    rubric: Rubric,
    system_prompt: str | None,
    block: Grading,
    config: Config,
    scored: Mapping[str, Mapping[str, Any]],
) -> Grader:
    """The grader that a block of the configuration and its rubric describe; `scored` as `LikelihoodJudge` has it."""
    if rubric.LOCAL_GRADER == "likelihood":
        return LikelihoodJudge(model, model_sha256, rubric, system_prompt, scored)
    if rubric.LOCAL_GRADER == "choice":
        return ChoiceJudge.of(model, model_sha256, rubric, system_prompt)
    temperature = rubric.answer_temperature(block)
    return ReplyJudge(
        model,
        model_sha256,
        rubric,
        system_prompt,
        temperature=1.0 if temperature is None else temperature,
        max_tokens=block.max_tokens,
        n_slots=config.n_slots,
        cache_tokens=config.cache_tokens,
    )


@dataclass(frozen=True)
class LikelihoodJudge:
    """A local model that reads a likelihood rubric.

    scored: rows of `schemas.LOGPROBS` by prompt id, for responses that the experiment has already scored with this model,
    system prompt and temperature. The numbers would be the same, so they are not computed again.
    """

    model: Any
    model_sha256: str
    rubric: Likelihood
    system_prompt: str
    scored: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def identity(self, item: Item) -> dict[str, Any]:
        prompt_ids = self._prompt_ids(item)
        return {
            "judge": Likelihood.VERSION,
            "score": scorer.VERSION,
            "model": self.model_sha256,
            "prompt_ids": prompt_ids,
            "response_ids": item.token_ids,
            "temperature": self.rubric.temperature,
            "fits": len(prompt_ids) + len(item.token_ids) <= self.model.n_ctx,
        }

    def grade(self, items: Mapping[str, Item]) -> Iterator[tuple[str, Grade]]:
        passes = []
        for key, item in items.items():
            if (row := self.scored.get(item.prompt_id)) is not None:
                yield key, _grade(row["status"], row["token_logprobs"])
            else:
                passes.append(scorer.Item(key, self._prompt_ids(item), item.token_ids))
        n_read = {one.key: len(one.prompt_ids) for one in passes}
        sampling = Sampling(temperature=self.rubric.temperature)
        shared = chat.shared(self.model, self.system_prompt)
        for key, (result,) in scorer.score(self.model, passes, [sampling], shared=shared):
            yield key, _grade(result.status, result.token_logprobs, n_read[key])

    def _prompt_ids(self, item: Item) -> tuple[int, ...]:
        return chat.render(self.model, self.system_prompt, item.prompt)


def _grade(status: str, token_logprobs: Sequence[float], n_read: int = 0) -> Grade:
    """The grade of a scored response, for which `n_read` prompt tokens were read now; 0 where it had been scored before."""
    if status in UNSCORED:
        return Grade(None, UNSCORED[status])
    n_scored = len(token_logprobs) if n_read else 0
    return Grade(likelihood.score(token_logprobs), prompt_tokens=n_read, response_tokens=n_scored)


@dataclass(frozen=True)
class ChoiceJudge:
    """A local model that reads a question about a response and chooses among its answers. Made by `of`."""

    model: Model
    model_sha256: str
    rubric: Choices
    system_prompt: str | None
    opening: tuple[int, ...]  # tokens, which the answer begins with
    tokens: tuple[int, ...]  # (k,) one an answer
    scores: tuple[float, ...]  # (k,) in [0, 1], rising

    @classmethod
    def of(cls, model: Model, model_sha256: str, rubric: Choices, system_prompt: str | None) -> ChoiceJudge:
        """The judge, or a `UserError` when an answer is not one token of the model, or two are the same."""
        opening, token_of = _answer_tokens(model, rubric, system_prompt)
        answers = sorted((rubric.choices[text], token) for text, token in token_of.items())
        scores, tokens = zip(*answers, strict=True)
        return cls(model, model_sha256, rubric, system_prompt, opening, tokens, scores)

    def identity(self, item: Item) -> dict[str, Any]:
        question = self._question(item.prompt, item.response)
        return {
            "judge": Choices.VERSION,
            "score": scorer.VERSION,  # the same passes, and the same log probabilities
            "model": self.model_sha256,
            "prompt_ids": question,
            "answers": list(zip(self.tokens, self.scores, strict=True)),
            "answered": item.answered,
            "fits": self._fits(question),
        }

    def grade(self, items: Mapping[str, Item]) -> Iterator[tuple[str, Grade]]:
        questions = {key: self._question(item.prompt, item.response) for key, item in items.items()}
        fitting = [question for question in questions.values() if self._fits(question)]
        shared = usable(self.model, self._shared()) if fitting else ()
        n_tokens = max(map(len, [*fitting, shared]), default=0) or 1
        n_seq = 2 if shared else 1
        with Context(self.model, n_tokens=n_tokens, n_batch=min(n_tokens, BLOCK), n_outputs=1, n_seq=n_seq) as context:
            reader = Reader(context, shared, place=1)
            for key, question in questions.items():
                if not items[key].answered:
                    yield key, Grade(None, UNSCORED["empty"])
                elif not self._fits(question):
                    yield key, Grade(None, UNSCORED["too_long"])
                else:
                    (logits,) = reader.read(question, 0, 1)
                    yield key, self._chosen(logits, len(question))

    def _question(self, prompt: str, response: str) -> tuple[int, ...]:
        """Token ids up to where the choice is made."""
        return (*chat.render(self.model, self.system_prompt, self.rubric.question(prompt, response)), *self.opening)

    def _fits(self, question: tuple[int, ...]) -> bool:
        return len(question) + 1 <= self.model.n_ctx

    def _shared(self) -> tuple[int, ...]:
        """Token ids that all questions begin with: the system prompt, and the template up to the first text in it."""
        one, other = (self._question(text, text) for text in ("a", "1"))
        return one[: n_common(one, other)]

    def _chosen(self, logits: np.ndarray, n_read: int) -> Grade:
        """The grade that the logits (1, V) of the choice give."""
        logprobs = log_probs(logits, Sampling())[0, list(self.tokens)]  # (k,) nats
        if np.isnan(logprobs).any():
            return Grade(None, UNSCORED["not_finite"])
        choice_mass = min(1.0, float(np.exp(logprobs).sum()))
        # The likeliest token of all: the answer to look at where the choices have little probability.
        reply = {"reply": self.model.detokenize([int(logits[0].argmax())]), "choice_mass": choice_mass}
        if choice_mass < FLOOR:
            return Grade(None, NO_CHOICE, **reply, prompt_tokens=n_read)
        pairs = grades.distribution(logprobs, np.asarray(self.scores))
        return Grade(grades.mean_score(pairs), distribution=pairs, **reply, prompt_tokens=n_read)


def _answer_tokens(model: Model, rubric: Choices, system_prompt: str | None) -> tuple[tuple[int, ...], dict[str, int]]:
    """Tokens of the opening, and the token of each answer in its place after it."""
    opening = chat.respond(model, system_prompt, "a", rubric.opening) if rubric.opening else ()
    text_of: dict[int, str] = {}  # answers by their token
    for text in rubric.choices:
        ids = chat.respond(model, system_prompt, "a", rubric.opening + text)
        answer_ids = ids[len(opening) :]
        where = f"model {model.path.name}: the rubric's answer {text!r}"
        if ids[: len(opening)] != opening:
            raise UserError(
                f"{where} merges with the opening {rubric.opening!r} into another token; move the space between them to the "
                "other side"
            )
        if len(answer_ids) != 1:
            raise UserError(
                f"{where} is {len(answer_ids)} tokens, expected one; choose a digit, a letter or a short word"
            )
        if answer_ids[0] in text_of:
            raise UserError(f"{where} is the same token as {text_of[answer_ids[0]]!r}; leave one of the two out")
        text_of[answer_ids[0]] = text
    return opening, {text: token for token, text in text_of.items()}


@dataclass(frozen=True)
class ReplyJudge:
    """A local model that answers a question about a response in words. The slots bound memory and change no answer."""

    model: Model
    model_sha256: str
    rubric: Structured
    system_prompt: str | None
    temperature: float
    max_tokens: int
    n_slots: int = 32
    cache_tokens: int = generator.CACHE_TOKENS

    def identity(self, item: Item) -> dict[str, Any]:
        questions = [self._question(item.prompt, item.response, again=again) for again in (False, True)]
        return {
            "judge": Structured.VERSION,
            "generate": generator.VERSION,
            "model": self.model_sha256,
            "prompt_ids": questions,
            "scale": self.rubric.scale,
            "samples": self.rubric.samples,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "answered": item.answered,
            "fits": [len(question) + self.max_tokens <= self.model.n_ctx for question in questions],
        }

    def grade(self, items: Mapping[str, Item]) -> Iterator[tuple[str, Grade]]:
        yield from ((key, Grade(None, grades.NO_RESPONSE)) for key, item in items.items() if not item.answered)
        answers: dict[str, dict[int, Grade]] = {key: {} for key, item in items.items() if item.answered}
        todo = [(key, sample) for key in answers for sample in range(self.rubric.samples)]
        for again in (False, True):
            open_samples = Counter(key for key, _ in todo)
            unread = []
            for (key, sample), answer in self._answers(items, todo, again=again):
                answers[key][sample] = _second_answer(answers[key].get(sample), answer)
                open_samples[key] -= 1
                if not again and grades.unread(answer):
                    unread.append((key, sample))
                if not open_samples[key] and not any(grades.unread(one) for one in answers[key].values() if not again):
                    yield key, grades.combined([answers[key][sample] for sample in range(self.rubric.samples)])
            todo = unread

    def _answers(
        self, items: Mapping[str, Item], places: Sequence[tuple[str, int]], *, again: bool
    ) -> Iterator[tuple[tuple[str, int], Grade]]:
        """Answers by item and sample, as they are ready."""
        requests = {}
        for key, sample in places:
            question = self._question(items[key].prompt, items[key].response, again=again)
            rng = stream(0, "judge", digest(question), sample)
            requests[key, sample] = generator.Request((key, sample), question, rng)
        for generated in generator.generate(
            self.model,
            requests.values(),
            Sampling(temperature=self.temperature),
            self.max_tokens,
            self.n_slots,
            cache_tokens=self.cache_tokens,
            shared=self._shared(),
        ):
            if generated.status == "too_long":
                yield generated.key, Grade(None, grades.TOO_LONG)
            else:
                # Models mark the end of a draft by control tokens.
                text = generator.text_of(self.model, generated.token_ids, control=True)
                answer = self.rubric.read(text, cut=generated.finish_reason == "length")
                n_read = len(requests[generated.key].prompt_ids)
                yield generated.key, replace(answer, prompt_tokens=n_read, response_tokens=len(generated.token_ids))

    def _question(self, prompt: str, response: str, *, again: bool = False) -> tuple[int, ...]:
        # The texts are tokenised apart from control tokens, but the answer is read as text.
        texts = map(quoting.break_draft_markers, (prompt, response))
        return chat.render(self.model, self.system_prompt, self.rubric.question(*texts, again=again))

    def _shared(self) -> tuple[int, ...]:
        one, other = (self._question(text, text) for text in ("a", "1"))
        return one[: n_common(one, other)]


def _second_answer(first: Grade | None, answer: Grade) -> Grade:
    """The second answer with the tokens of both; the first one where the longer question did not fit."""
    if first is None:
        return answer
    if answer.reason == grades.TOO_LONG:
        return first
    return replace(
        answer,
        prompt_tokens=first.prompt_tokens + answer.prompt_tokens,
        response_tokens=first.response_tokens + answer.response_tokens,
    )
