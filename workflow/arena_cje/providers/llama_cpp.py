"""Judges through llama.cpp: the likelihood of a response under a rubric's system prompt, or a choice among answers.

    likelihood   score = exp(mean_t log p(token_t | rubric's system prompt, prompt, earlier tokens))   in [0, 1]
    choices      mass_k = p(answer_k | question) / sum_j p(answer_j | question),   score = sum_k mass_k score_k

The first is the geometric mean of the token probabilities at the rubric's temperature, without a nucleus. The second is
the model's own distribution of the next token after the rubric's question, read off one forward pass: no sampling, so
no noise beside the judge's own doubt, and no reply to misread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from arena_cje import judging
from arena_cje.errors import UserError
from arena_cje.judging import Choices, Grade, Item, Likelihood
from arena_cje.llama import chat, scorer
from arena_cje.llama.distribution import Sampling, log_probs
from arena_cje.llama.model import Context, Model
from arena_cje.llama.prefill import BLOCK, Reader, n_common, usable

# Raise when a grade would change, by a likelihood and by a choice.
VERSION = 1
CHOICES_VERSION = 1

# Probability of all the answers together; with less the model did not take the question for one, and what tells the
# answers apart is the far tail of its distribution.
FLOOR = 1e-6

UNSCORED = {
    "empty": "there is no response to judge",
    "too_long": "prompt and response do not fit the judge's context",
    "not_finite": "the model returned no number",
}
NO_CHOICE = f"the rubric's answers have probability below {FLOOR:g} together"


@dataclass(frozen=True)
class Judge:
    """A local model that reads a likelihood rubric.

    `scored` are rows of `schemas.LOGPROBS` for responses, by prompt id, that an experiment has scored with this model, prompt
    and temperature for its own sake: the same numbers, so they are not computed again.
    """

    model: Any
    model_sha256: str
    rubric: Likelihood
    system_prompt: str
    scored: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def identity(self, item: Item) -> dict[str, Any]:
        prompt_ids = self._prompt_ids(item)
        return {
            "judge": VERSION,
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
    return Grade(float(np.exp(np.mean(token_logprobs))), prompt_tokens=n_read, response_tokens=n_scored)


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
        opening, token_of = _answers(model, rubric, system_prompt)
        answers = sorted((rubric.choices[text], token) for text, token in token_of.items())
        scores, tokens = zip(*answers, strict=True)
        return cls(model, model_sha256, rubric, system_prompt, opening, tokens, scores)

    def identity(self, item: Item) -> dict[str, Any]:
        question = self._question(item.prompt, item.response)
        return {
            "judge": CHOICES_VERSION,
            "score": scorer.VERSION,  # the same passes, and the same log probabilities
            "model": self.model_sha256,
            "prompt_ids": question,
            "answers": list(zip(self.tokens, self.scores, strict=True)),
            "answered": bool(item.token_ids),
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
                if not items[key].token_ids:
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
        # What it would have said, had it been free to: the answer to look at where the choices have little probability.
        told = {"reply": self.model.detokenize([int(logits[0].argmax())]), "choice_mass": choice_mass}
        if choice_mass < FLOOR:
            return Grade(None, NO_CHOICE, **told, prompt_tokens=n_read)
        pairs = judging.distribution(logprobs, np.asarray(self.scores))
        return Grade(judging.mean_score(pairs), distribution=pairs, **told, prompt_tokens=n_read)


def _answers(model: Model, rubric: Choices, system_prompt: str | None) -> tuple[tuple[int, ...], dict[str, int]]:
    """Tokens of the opening, and the token of each answer in its place after it."""
    opening = chat.respond(model, system_prompt, "a", rubric.opening) if rubric.opening else ()
    text_of: dict[int, str] = {}
    for text in rubric.choices:
        ids = chat.respond(model, system_prompt, "a", rubric.opening + text)
        own = ids[len(opening) :]
        where = f"model {model.path.name}: the rubric's answer {text!r}"
        if ids[: len(opening)] != opening:
            raise UserError(
                f"{where} joins the opening {rubric.opening!r} to another token; move the space between them to the other side"
            )
        if len(own) != 1:
            raise UserError(f"{where} is {len(own)} tokens, expected one; choose a digit, a letter or a short word")
        if own[0] in text_of:
            raise UserError(f"{where} is the same token as {text_of[own[0]]!r}; leave one of the two out")
        text_of[own[0]] = text
    return opening, {text: token for token, text in text_of.items()}
