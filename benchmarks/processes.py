"""Two processes over one, for all that a model does in a run: generate, score, judge.

Each process has a model of its own, one thread, and the same items. A round is one process, two, one again, so that what else
the machine does falls on both sides of the ratio of a round; the last line of each is the same ratio by processor time, which
other work on the machine changes little and which includes the competition of the two for caches and memory. With an idle
machine it takes two minutes.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
from typing import TYPE_CHECKING

from arena_cje.grading import grades
from arena_cje.grading.local import LikelihoodJudge
from arena_cje.grading.rubrics import load_rubric
from arena_cje.llama.distribution import Sampling
from arena_cje.llama.generator import generate
from arena_cje.llama.scorer import score
from benchmarks import _work
from benchmarks._result import Result
from benchmarks._timing import Rates, Sides, Turn, cores, counted, progress, side_by_side
from benchmarks._work import PROMPTS, ROOT, SHORT, SYSTEM_PROMPT, described, n_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arena_cje.llama.scorer import Item

RUBRIC = ROOT / "resources" / "judges" / "likelihood.yaml"
N_ITEMS = 16  # of each process
GOAL = ">= 1.8"
TURNS = ("one process", "two processes", "one process again")


def run() -> Iterator[Result]:
    """The speed of two processes as a multiple of one's, by the clock on the wall and by processor time."""
    with _work.open_default() as model:
        progress("processes: drawing the responses to score and judge ...")
        items = _work.draw_short(model)[:N_ITEMS]
    for what in ("generate", "score", "judge"):
        if cores() < 2:
            yield Result(f"two processes / one, {what}", None, GOAL, "not measured: this machine has one core")
            continue
        progress(f"processes: {what} ...")
        turns = [Turn(name, what, 2 if name == TURNS[1] else 1) for name in TURNS]
        clocks = side_by_side(functools.partial(_sides, items), turns)
        yield _compared(f"two processes / one, {what}", clocks.wall, f"each {described(items)}; spoilt by other work")
        yield _compared(
            f"two processes / one, {what}, processor time", clocks.processor, "twice the work of one, slowed"
        )


def _compared(name: str, rates: Rates, where: str) -> Result:
    one, two, again = (rates[turn] for turn in TURNS)
    ratios = [b / statistics.mean((a, c)) for a, b, c in zip(one, two, again, strict=True)]
    speeds = f"{statistics.median(two):.0f} against {statistics.median(one + again):.0f} tokens/s"
    return Result(
        name, statistics.median(ratios), GOAL, f"{where}: {speeds}, by round {min(ratios):.3g} to {max(ratios):.3g}"
    )


@contextlib.contextmanager
def _sides(items: Sequence[Item]) -> Iterator[Sides]:
    """What a process of its own does with a model that it opens."""
    with _work.open_default() as model:
        rubric, texts = load_rubric(RUBRIC), PROMPTS[: len(items)]
        judge = LikelihoodJudge(model, "", rubric, SYSTEM_PROMPT)
        graded = {
            str(item.key): grades.Item(str(item.key), 0, text, "", item.response_ids)
            for item, text in zip(items, texts, strict=True)
        }

        def draw() -> int:
            requests = _work.requests(model, texts)
            return sum(len(response.token_ids) for response in generate(model, requests, Sampling(), SHORT))

        yield {
            "generate": draw,
            "score": counted(lambda: list(score(model, items, [Sampling()])), n_tokens(items)),
            "judge": counted(lambda: list(judge.grade(graded)), n_tokens(items)),
        }
