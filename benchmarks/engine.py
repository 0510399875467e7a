"""The engine against what bounds it and against the calls it replaces: scorer, generator, memory.

Every comparison of one process runs one thread and counts processor time; sides are timed in turn and compared by the
median of their ratios within a round (the reason is in `_timing`). The yardsticks are llama.cpp's own calls, replayed with
nothing in between, and llama-cpp-python's high-level class.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from arena_cje.llama import chat
from arena_cje.llama.distribution import Sampling, stream
from arena_cje.llama.generator import CACHE_TOKENS, Request, generate
from arena_cje.llama.model import Context, Model
from arena_cje.llama.scorer import Item, Scored, score
from benchmarks import _high_level, _work
from benchmarks._memory import peak_of
from benchmarks._replay import Recording, Replay, prefill, recorded
from benchmarks._result import Result
from benchmarks._timing import Rates, Sides, Turn, by_round, cores, counted, measure, progress, ratio, side_by_side
from benchmarks._work import MODEL, PROMPTS, SHORT, SYSTEM_PROMPT, Work, described, ids, n_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ONE = Sampling()
FIVE = [Sampling(temperature) for temperature in (1.0, 0.5, 0.7, 0.9, 1.2)]
MOST_PROCESSES = 8
N_SIDE_BY_SIDE = 12  # items of each process
N_ECHOED = 4  # items; create_completion with log probabilities is slow
N_CHECKED = 8  # short items whose log probabilities are checked, beside the long ones
N_CHATS = 6
PREFIXES = {20: (8, "> 1"), 200: (8, "> 1"), 800: (8, "> 1")}  # tokens of the system prompt: items, goal


def run() -> Iterator[Result]:
    """All benchmarks of the engine."""
    with _work.open_default() as model:
        progress("engine: drawing the responses to score ...")
        work = _work.draw(model)
        for benchmark in BENCHMARKS:
            progress(f"engine: {benchmark.__name__.replace('_', ' ')} ...")
            yield from benchmark(model, work)


def scorer(model: Model, work: Work) -> Iterator[Result]:
    """The scorer against its own decode calls, bare prefill and Llama.eval, and what more temperatures cost."""
    with _scoring_sides(model, work.short) as sides:
        five = counted(lambda: _score(model, work.short, FIVE), n_tokens(work.short))
        short = measure({**sides, "five temperatures": five})
    with _scoring_sides(model, work.long) as sides, _high_level.opened(logits_all=True) as llama:
        evaluated = counted(lambda: _high_level.totals(llama, work.long), n_tokens(work.long))
        long = measure({**sides, "Llama.eval": evaluated})
    few, many = described(work.short), described(work.long)
    own, bare = (f"; {few}: {ratio(short, 'scorer', other):.3g}" for other in ("decode calls", "bare prefill"))
    # What llama.cpp itself takes for the logits, which no scorer can get back.
    calls = f"; its decode calls alone: {ratio(long, 'decode calls', 'bare prefill'):.3g}"
    yield _compared("scorer / its decode calls", long, "scorer", "decode calls", ">= 0.95", many, own)
    yield _compared("scorer / bare prefill", long, "scorer", "bare prefill", ">= 0.83", many, calls + bare)
    yield _compared("scorer / Llama.eval and log-softmax", long, "scorer", "Llama.eval", ">= 1.25", many)
    yield _compared("five temperatures / one, time", short, "scorer", "five temperatures", "<= 1.3", few)


def scorer_in_all_processes(_: Model, work: Work) -> Iterator[Result]:
    """The scorer against its own decode calls with every core at work.

    Processor time here too: waiting for memory that the others keep busy counts in it, waiting for a core does not.
    """
    n = min(cores(), MOST_PROCESSES)
    items = work.short[:N_SIDE_BY_SIDE]
    turns = [Turn("scorer", "scorer", n), Turn("decode calls", "decode calls", n)]
    rates = side_by_side(functools.partial(_own_scoring_sides, items), turns).processor
    where = f"{n} processes, each {described(items)}"
    yield _compared("scorer / its decode calls, a process a core", rates, "scorer", "decode calls", ">= 0.95", where)


def scorer_and_completion(model: Model, work: Work) -> Iterator[Result]:
    """The scorer against create_completion(echo=True, logprobs=1): its speed, and whose numbers are right."""
    with _high_level.opened(logits_all=True) as llama:
        texts = {item.key: llama.detokenize(ids(item), special=True).decode() for item in work.short}
        same = [item for item in work.short if model.tokenize(texts[item.key], special=True) == ids(item)]
        items = same[:N_ECHOED]
        echoed = {}

        def echo() -> None:
            echoed.update({item.key: _high_level.echo(llama, texts[item.key]) for item in items})

        sides = {"scorer": counted(lambda: _score(model, items), n_tokens(items))}
        rates = measure({**sides, "create_completion": counted(echo, n_tokens(items))}, rounds=2)
        # The last number is that of the sampled token; those of the response precede it.
        in_chats = [(item, echoed[item.key][-1 - len(item.response_ids) : -1]) for item in items]
        plain = [_plain(model, item) for item in items]
        # The first token has no number.
        in_texts = [(item, _high_level.echo(llama, model.detokenize(ids(item)))[1:]) for item in plain]
    name = "scorer / create_completion with logprobs"
    yield _compared(name, rates, "scorer", "create_completion", ">= 20", described(items))
    detail = (
        "nats a token, median: its numbers are one token off unless the text begins with BOS; "
        f"{np.median(_errors(model, in_chats)):.2g} in chats, whose template does"
    )
    yield Result("error of create_completion, plain text", float(np.median(_errors(model, in_texts))), None, detail)


def scorer_error(model: Model, work: Work) -> Iterator[Result]:
    """The scorer's numbers against the softmax in 64 bits."""
    items = [*work.short[:N_CHECKED], *work.long]
    scored = zip(items, (result.token_logprobs for result in _score(model, items)), strict=True)
    errors = _errors(model, scored)
    detail = f"nats a token, greatest of {len(errors)} tokens, against a softmax in 64 bits on a pass of its own"
    yield Result("error of the scorer", float(errors.max()), "<= 1e-5", detail)


def generator(model: Model, work: Work) -> Iterator[Result]:
    """The generator against its own decode calls and against one chat completion after the other."""

    def draw() -> int:
        requests = _work.requests(model, PROMPTS[: len(work.short)])
        return sum(len(response.token_ids) for response in generate(model, requests, ONE, SHORT))

    with recorded() as recording:
        n_new = draw()
    with Replay(model, recording) as replay, _high_level.opened() as llama:

        def draw_one_by_one() -> int:
            return sum(_high_level.chat(llama, PROMPTS[i], max_tokens=SHORT, seed=i) for i in range(N_CHATS))

        replayed = counted(replay.run, n_new)
        rates = measure({"generator": draw, "decode calls": replayed, "create_chat_completion": draw_one_by_one})
    sizes = f"{len(work.short)} responses side by side, new tokens"
    yield _compared("generator / its decode calls", rates, "generator", "decode calls", ">= 0.85", sizes)
    name, where = "generator / create_chat_completion", f"{sizes}, against {N_CHATS} of them one by one"
    yield _compared(name, rates, "generator", "create_chat_completion", ">= 3", where)


def memory(model: Model, _: Work) -> Iterator[Result]:
    """What a process takes that fills its context and its caches to the last token."""
    file = MODEL.stat().st_size  # bytes
    for what, task in {"scoring": score_a_full_context, "generating": generate_into_full_caches}.items():
        peak = peak_of(task)
        detail = f"MB; peak {peak / 1e6:.0f}, model file {file / 1e6:.0f}; {model.n_ctx} tokens"
        yield Result(f"memory of {what} above the model file", (peak - file) / 1e6, "<= 700", detail)


def shared_prefix(model: Model, _: Work) -> Iterator[Result]:
    """Speed-up from reading the system prompt once for all prompts of a context, by its length in tokens."""
    for length, (n_items, goal) in PREFIXES.items():
        system_prompt = _work.words(model, length)
        prefix = chat.shared(model, system_prompt)
        items = [_item_under(model, system_prompt, i) for i in range(n_items)]
        rates, off = _with_and_without(model, items, prefix)
        where = f"{described(items)}, {len(prefix)} tokens shared"
        yield _compared(
            f"shared prefix / none, {length} tokens", rates, "prefix", "none", goal, where, f"; {off:.2g} nats apart"
        )


BENCHMARKS: tuple[Callable[[Model, Work], Iterator[Result]], ...] = (
    scorer,
    scorer_in_all_processes,
    scorer_and_completion,
    scorer_error,
    generator,
    memory,
    shared_prefix,
)


def _compared(name: str, rates: Rates, side: str, other: str, goal: str | None, where: str, more: str = "") -> Result:
    """`side` as a multiple of `other`, and how fast and how steady they were."""
    ratios = by_round(rates, side, other)
    speeds = f"{statistics.median(rates[side]):.0f} against {statistics.median(rates[other]):.0f} tokens/s"
    detail = f"{where}: {speeds}, by round {min(ratios):.3g} to {max(ratios):.3g}{more}"
    return Result(name, ratio(rates, side, other), goal, detail)


def _score(
    model: Model, items: Sequence[Item], samplings: Sequence[Sampling] = (ONE,), *, shared: Sequence[int] = ()
) -> list[Scored]:
    """The items under the first sampling, having been scored under all."""
    return [first for _, (first, *_) in score(model, items, samplings, shared=shared)]


@contextlib.contextmanager
def _scoring_sides(model: Model, items: list[Item]) -> Iterator[Sides]:
    """The scorer; the decode calls it makes; the same tokens, an item a pass, without logits."""
    with recorded() as recording:
        _score(model, items)
    bare = Recording(recording.params)
    for item in items:
        bare.calls += [("llama_memory_clear", (False,)), ("llama_decode", prefill(ids(item)[:-1]))]
    with Replay(model, recording) as replay, Replay(model, bare) as bare_prefill:
        yield {
            "scorer": counted(lambda: _score(model, items), n_tokens(items)),
            "decode calls": counted(replay.run, n_tokens(items)),
            "bare prefill": counted(bare_prefill.run, n_tokens(items)),
        }


@contextlib.contextmanager
def _own_scoring_sides(items: list[Item]) -> Iterator[Sides]:
    """The same for a process that has no model open yet."""
    with _work.open_default() as model, _scoring_sides(model, items) as sides:
        yield sides


def _plain(model: Model, item: Item) -> Item:
    """The response as a text by itself, outside a chat: its first token is what the others are predicted from."""
    tokens = model.tokenize(model.detokenize(item.response_ids))
    return Item(item.key, tokens[:1], tokens[1:])


def _errors(model: Model, scored: Iterable[tuple[Item, Sequence[float]]]) -> np.ndarray:
    """How far log probabilities are from the truth, nats, over all tokens of the responses."""
    return np.concatenate([np.abs(np.asarray(logprobs) - _truth(model, item)) for item, logprobs in scored])


def _truth(model: Model, item: Item) -> np.ndarray:
    """Log probabilities of the response's tokens, (t,) nats: one pass of its own, and all of the softmax in 64 bits."""
    tokens, t = ids(item)[:-1], len(item.response_ids)
    with Context(model, n_tokens=len(tokens), n_batch=len(tokens), n_outputs=t) as context:
        logits = context.decode(tokens, range(len(tokens)), 0, t).astype(np.float64)  # (t, V)
    return logits[np.arange(t), item.response_ids] - logsumexp(logits, axis=1)


def score_a_full_context() -> None:
    """One item as long as the context."""
    with _work.open_default() as model:
        prompt = chat.render(model, SYSTEM_PROMPT, PROMPTS[0])
        room = model.n_ctx - len(prompt)
        response = model.tokenize(_work.words(model, room))[:room]
        _score(model, [Item(0, prompt, response)])


def generate_into_full_caches() -> None:
    """As many prompts as long as the context as the caches may hold."""
    with _work.open_default() as model:
        prompt = model.tokenize(_work.words(model, model.n_ctx))[: model.n_ctx - 2]
        requests = [Request(i, prompt, stream(0, "bench", str(i), 0)) for i in range(CACHE_TOKENS // model.n_ctx)]
        list(generate(model, requests, ONE, 2))


def _item_under(model: Model, system_prompt: str, i: int) -> Item:
    """A user's text of about 20 tokens and 32 tokens of response."""
    response = model.tokenize(_work.joined(i, 20))[:SHORT]
    return Item(i, chat.render(model, system_prompt, _work.joined(i, 3)), response)


def _with_and_without(model: Model, items: list[Item], prefix: Sequence[int]) -> tuple[Rates, float]:
    """Speeds with the prefix shared and not, and by how much a log probability differs at most, nats."""
    logprobs: dict[str, np.ndarray] = {}

    def scoring(name: str, shared: Sequence[int]) -> Callable[[], None]:
        def work() -> None:
            scored = _score(model, items, shared=shared)
            logprobs[name] = np.concatenate([one.token_logprobs for one in scored])

        return work

    sides = {"prefix": scoring("prefix", prefix), "none": scoring("none", ())}
    rates = measure({name: counted(work, n_tokens(items)) for name, work in sides.items()}, rounds=2)
    return rates, float(np.abs(logprobs["prefix"] - logprobs["none"]).max())
