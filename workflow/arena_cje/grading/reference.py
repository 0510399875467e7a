"""The reference oracle: grades a response by checks that came with its prompt. It costs nothing and never varies.

    score   = content * format        in [0, 1]; 0 when the response has no word or has a forbidden phrase
    content = [a phrase of `any_of` is found] * [`pattern` is found] * (share of the groups of `all_of` that are found)
    format  = (1 + form checks met) / (1 + form checks)      `starts_with`, `max_words`, `min_words`

A group is found when one of its phrases is. A check that a reference leaves out counts as met; it must have at least one of the
three content checks, so that form alone earns nothing. Hence a right answer in the one wrong form is worth 1/2, and a
wrong answer is worth 0 in any form.

Phrases are matched as whole words: text is NFKD-normalised, casefolded, stripped of accents, apostrophes and all other
punctuation ("São Paulo" = "sao paulo", "1,000" = "1000", "3.5" is one word), so "art" is not in "start" and "4" is not
in "14". Signs and symbols are not words, and scripts that write without spaces have none: use `pattern`, which is
searched in the response as it stands, without regard to case.

Works when the answer can be recognised by its words. It reads no negation ("it is not Paris" has Paris) and no meaning.
"""

from __future__ import annotations

import re
import signal
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from arena_cje.errors import UserError, did_you_mean
from arena_cje.grading.grades import Grade, Item

# Part of what identifies a label: raise it whenever a change here alters any score.
VERSION = 1

Words = tuple[str, ...]

MAX_SEARCH = (
    2.0  # seconds of processor time for one pattern and one response; a pattern that does not backtrack takes 1 ms
)

_APOSTROPHES = re.compile(r"['\u2018\u2019\u02bc`]")
_DIGIT_GROUPS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_WORD = re.compile(r"\d+(?:\.\d+)+|[^\W_]+")


@dataclass(frozen=True)
class Reference:
    """The checks of one prompt; None or empty leaves a check out. Read from a prompt file by `parse`."""

    any_of: tuple[str, ...] = ()
    all_of: tuple[tuple[str, ...], ...] = ()
    pattern: str | None = None
    forbidden: tuple[str, ...] = ()
    starts_with: str | None = None
    max_words: int | None = None
    min_words: int | None = None


FIELDS = tuple(field.name for field in fields(Reference))


def words(text: str) -> Words:
    """The words of a text in the form they are compared in: casefolded, without accents or punctuation."""
    # Twice, as the Unicode standard's compatibility caseless match does: decomposing can bring back capitals (U+03D2).
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in text if not unicodedata.combining(c))
    return tuple(_WORD.findall(_DIGIT_GROUPS.sub("", _APOSTROPHES.sub("", bare))))


def contains(text: Words, phrase: str) -> bool:
    """Whether the phrase's words stand next to one another, in order, in the text."""
    target = words(phrase)
    return any(text[i : i + len(target)] == target for i in range(len(text) - len(target) + 1))


def content_credit(reference: Reference, response: str) -> float:
    """Share of the required content that the response has, in [0, 1]."""
    text = words(response)
    if reference.any_of and not any(contains(text, phrase) for phrase in reference.any_of):
        return 0.0
    if reference.pattern is not None and not matches(reference.pattern, response):
        return 0.0
    groups = [any(contains(text, phrase) for phrase in group) for group in reference.all_of]
    return sum(groups) / len(groups) if groups else 1.0


def matches(pattern: str, response: str) -> bool:
    """Whether a pattern is found in a response; raises a `UserError` if the search exceeds its time limit."""
    try:
        with _time_limit(MAX_SEARCH):
            return re.search(pattern, response, re.IGNORECASE | re.MULTILINE) is not None
    except TimeoutError:
        raise UserError(
            f"`reference.pattern` {pattern!r:.200} did not finish on a response of {len(response)} characters within "
            f"{MAX_SEARCH:g} s; nested repetitions such as (a+)+ can take forever: rewrite the pattern without them, or use "
            "`any_of`"
        ) from None


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise a `TimeoutError` after seconds of processor time. Python takes signals in its main thread alone, where jobs run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError

    earlier = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, earlier)


def format_credit(reference: Reference, response: str) -> float:
    """(1 + form checks met) / (1 + form checks), in (0, 1]."""
    text = words(response)
    met = []
    if reference.starts_with is not None:
        opening = words(reference.starts_with)
        met.append(text[: len(opening)] == opening)
    if reference.max_words is not None:
        met.append(len(text) <= reference.max_words)
    if reference.min_words is not None:
        met.append(len(text) >= reference.min_words)
    return (1 + sum(met)) / (1 + len(met))


def grade(reference: Reference, response: str) -> Grade:
    """The oracle label of one response; always a number, since an empty response is a bad answer, not a missing one."""
    text = words(response)
    if not text or any(contains(text, phrase) for phrase in reference.forbidden):
        return Grade(score=0.0, reason=None, reply=None)
    score = content_credit(reference, response) * format_credit(reference, response)
    return Grade(score=score, reason=None, reply=None)


@dataclass(frozen=True)
class Oracle:
    """The grader of the workflow: reads the reference that came with each item."""

    def identity(self, item: Item) -> dict[str, Any]:
        return {"oracle": "reference", "version": VERSION, "reference": item.reference, "response": item.response}

    def grade(self, items: Mapping[str, Item]) -> Iterator[tuple[str, Grade]]:
        for key, item in items.items():
            if item.reference is None:
                yield key, Grade(score=None, reason="the prompt has no reference", reply=None)
            else:
                yield key, _graded(item)


def _graded(item: Item) -> Grade:
    where = f"prompt {item.prompt_id!r}"
    reference = parse(item.reference, where=where)
    try:
        return grade(reference, item.response)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def check(prompts: Sequence[Mapping[str, Any]]) -> None:
    """Refuse prompts whose references cannot be read, and a set in which none has one."""
    references = {row["prompt_id"]: row["reference"] for row in prompts if row.get("reference") is not None}
    if not references:
        raise UserError(
            f"the reference oracle cannot grade: none of the {len(prompts)} prompts has a `reference`; add "
            "references (resources/prompts/README.md says how)"
        )
    for prompt_id, raw in references.items():
        parse(raw, where=f"prompt {prompt_id!r}")


def parse(raw: Mapping[str, Any], *, where: str) -> Reference:
    """The reference written in a prompt record; `where` names file and line, or the prompt, in error messages."""
    if not isinstance(raw, Mapping):
        raise UserError(f"{where}: reference must be an object of checks ({', '.join(FIELDS)}), got {raw!r}")
    for name in raw:
        if name not in FIELDS:
            raise UserError(
                f"{where}: unknown check {name!r} in reference{did_you_mean(str(name), FIELDS)}; known: {', '.join(FIELDS)}"
            )
    reference = Reference(
        any_of=_phrases(raw.get("any_of", ()), "any_of", where),
        all_of=_groups(raw.get("all_of", ()), where),
        pattern=_pattern(raw.get("pattern"), where),
        forbidden=_phrases(raw.get("forbidden", ()), "forbidden", where),
        starts_with=_optional_phrase(raw.get("starts_with"), "starts_with", where),
        max_words=_count(raw.get("max_words"), "max_words", where),
        min_words=_count(raw.get("min_words"), "min_words", where),
    )
    _check_answerable(reference, where)
    return reference


def _check_answerable(reference: Reference, where: str) -> None:
    """Refuse references that no response could satisfy, or that any could."""
    if not reference.any_of and not reference.all_of and reference.pattern is None:
        raise UserError(f"{where}: reference checks no content; add any_of, all_of or pattern")
    low, high = reference.min_words, reference.max_words
    if low is not None and high is not None and low > high:
        raise UserError(f"{where}: reference has min_words {low} above max_words {high}; no response can satisfy both")


def _phrase(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or not words(value):
        raise UserError(f"{where}: {name} must contain text with at least one letter or digit, got {value!r}")
    return value


def _optional_phrase(value: Any, name: str, where: str) -> str | None:
    return None if value is None else _phrase(value, name, where)


def _phrases(value: Any, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f'{where}: {name} must be a list of phrases, such as ["Paris"], got {value!r}')
    return tuple(_phrase(item, name, where) for item in value)


def _groups(value: Any, where: str) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(group, list | tuple) and group for group in value):
        raise UserError(
            f'{where}: all_of must be a list of groups of alternatives, such as [["red"], ["gray", "grey"]], got '
            f"{value!r}"
        )
    return tuple(_phrases(group, "all_of", where) for group in value)


def _count(value: Any, name: str, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{where}: {name} must be a whole number of words, at least 1, got {value!r}")
    return value


def _pattern(value: Any, where: str) -> str | None:
    if value is None:
        return None
    try:
        re.compile(value)
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{where}: pattern must be a regular expression, got {value!r:.200} ({error})") from error
    return value
