"""The engine on a GPU: whether scores keep their bits, and how far one response a pass leaves the card idle.

`benchmarks/gpu.sh` builds llama.cpp for the card and runs this. Times are the clock's: the card works while the processor
waits. Yardsticks: the same decode calls with nothing in between, passes of 512 tokens, llama.cpp's own `llama-bench`, and
what the card's memory can carry, since one token drawn by itself reads the whole model.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.llama.distribution import Sampling, token_log_probs
from arena_cje.llama.generator import generate
from arena_cje.llama.library import has_gpu, library
from arena_cje.llama.model import Context, Model, open_model
from arena_cje.llama.prefill import BLOCK
from arena_cje.llama.scorer import Item, score
from benchmarks import _work
from benchmarks._replay import Replay, recorded
from benchmarks._result import Result
from benchmarks._timing import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ONE = Sampling()
N_ITEMS, N_ALONE, N_NEW, ROUNDS = 96, 16, 32, 3
SLOTS = (8, 32, 96)
CACHE_TOKENS = 65536  # of the generator: room for all slots
WIDTH, PLACES = 128, (4, 16, 32)  # packed passes: tokens of a place, places of a pass
FURTHER_MODELS = "Llama-3.2-3B*.gguf"  # of resources/models/, where somebody has put them
# Bytes a second by the makers' data sheets, by a part of the name that nvidia-smi gives.
BANDWIDTH = {"H200": 4.8e12, "H100": 3.35e12, "A100": 2.04e12, "L40S": 8.64e11, "L4": 3.0e11, "RTX 4090": 1.01e12}


def run() -> Iterator[Result]:
    """All measurements, for the default model and for larger ones that are there."""
    if not has_gpu():
        yield Result(
            "GPU",
            None,
            None,
            "not measured: the installed llama.cpp finds none; `sh benchmarks/gpu.sh` builds one that does",
        )
        return
    card = _card()
    for path in (_work.MODEL, *sorted(_work.MODEL.parent.glob(FURTHER_MODELS))):
        progress(f"gpu: {path.name} on {card}")
        with open_model(path, n_ctx=2048, n_gpu_layers=-1, n_threads=1) as model:
            yield from _of_model(model, card)


def _of_model(model: Model, card: str) -> Iterator[Result]:
    name = f"{model.path.stem}, {card}"
    yield from _generator(model, name)
    items = _items(model)
    rates = _rates(model, items)
    yield from _exactness(model, items, name)
    yield from _starvation(rates, items, name)
    yield from _packed(model, items, rates, name)
    yield from _beside_llama_bench(model, rates, name)


def _generator(model: Model, name: str) -> Iterator[Result]:
    """How many responses change with the number of slots, and how fast they are drawn."""
    responses, speeds = {}, {}
    for n_slots in SLOTS:
        start = time.perf_counter()
        responses[n_slots] = _responses(model, n_slots)
        speeds[n_slots] = sum(map(len, responses[n_slots].values())) / (time.perf_counter() - start)
    changed = sum(responses[SLOTS[0]][key] != responses[SLOTS[-1]][key] for key in responses[SLOTS[0]])
    rates = ", ".join(f"{n}: {speed:.0f}" for n, speed in speeds.items())
    yield Result(
        "responses that another n_slots changes, share",
        changed / N_ITEMS,
        None,
        f"{name}; {SLOTS[0]} against {SLOTS[-1]}",
    )
    yield Result(
        "generator, most slots / fewest",
        speeds[SLOTS[-1]] / speeds[SLOTS[0]],
        None,
        f"{name}; tokens/s by n_slots {rates}",
    )


def _exactness(model: Model, items: Sequence[Item], name: str) -> Iterator[Result]:
    """The greatest change of a token's log probability, nats, which must be none at all."""
    first = _scores(model, items)
    alone = {key: value for item in items[:N_ALONE] for key, value in _scores(model, [item]).items()}
    with open_model(model.path, n_ctx=model.n_ctx, n_gpu_layers=-1, n_threads=1) as other:
        reopened = _scores(other, items)
    for what, scores in {
        "scored once more": _scores(model, items),
        "in the reverse order": _scores(model, items[::-1]),
        "each by itself": alone,
        "by the model opened once more": reopened,
    }.items():
        yield Result(
            f"change of a log probability, {what}",
            _apart(first, scores),
            "<= 0",
            f"nats; {name}; {len(scores)} responses",
        )


@dataclass(frozen=True)
class Rates:
    """Tokens a second."""

    scorer: float
    decode_calls: float
    blocks: float  # passes of BLOCK tokens
    softmax: float  # share of the scorer's time that the processor spends on log probabilities


def _rates(model: Model, items: Sequence[Item]) -> Rates:
    n_tokens = _work.n_tokens(items)
    scoring = _seconds(lambda: _scores(model, items))
    with recorded() as recording:
        _scores(model, items)
    with Replay(model, recording) as replay:
        replaying = _seconds(replay.run)
    tokens = np.resize(_work.ids(items[0]), 4 * BLOCK)
    with Context(model, n_tokens=len(tokens), n_batch=BLOCK, n_outputs=2) as context:

        def read() -> None:
            context.forget(0)
            for start in range(0, len(tokens), BLOCK):
                context.decode(tokens[start : start + BLOCK], range(start, start + BLOCK), 0, 2)

        reading = _seconds(read)
    n_rows = sum(len(item.response_ids) for item in items)
    logits = np.random.default_rng(0).normal(size=(N_NEW, model.n_vocab)).astype(np.float32)
    softmax = _seconds(lambda: token_log_probs(logits, list(range(N_NEW)), ONE)) / N_NEW * n_rows
    return Rates(n_tokens / scoring, n_tokens / replaying, len(tokens) / reading, softmax / scoring)


def _starvation(rates: Rates, items: Sequence[Item], name: str) -> Iterator[Result]:
    """What a pass for every response leaves of the card."""
    where = f"{name}; {_work.described(items)}"
    yield Result(
        "scorer / its decode calls",
        rates.scorer / rates.decode_calls,
        ">= 0.8",
        f"{where}: {rates.scorer:.0f} tokens/s",
    )
    detail = f"{where}: {rates.decode_calls:.0f} against {rates.blocks:.0f} tokens/s; low where one response starves the card"
    yield Result(f"decode calls / passes of {BLOCK} tokens", rates.decode_calls / rates.blocks, ">= 0.5", detail)
    yield Result("share of scoring that is the softmax on the processor", rates.softmax, "<= 0.3", where)


def _packed(model: Model, items: Sequence[Item], rates: Rates, name: str) -> Iterator[Result]:
    """Many responses a pass, every pass of the same shape: is a score free of its place and company, and how fast is it?"""
    fitting = [item for item in items if len(_work.ids(item)) <= WIDTH and len(item.response_ids) <= N_NEW]
    for places in PLACES:
        with PackedContext(model, places) as context:
            first, apart = context.scores(fitting), 0.0
            for seed in range(4):
                order = np.random.default_rng(seed).permutation(len(fitting))
                apart = max(apart, _apart(first, context.scores([fitting[i] for i in order])))
            for item in fitting[:N_ALONE]:
                apart = max(apart, _apart(first, context.scores([item])))
            speed = _work.n_tokens(fitting) / _seconds(lambda used=context: used.scores(fitting))
        where = f"{name}; {places} places of {WIDTH} tokens, {len(fitting)} responses"
        yield Result("change of a log probability by place and company", apart, "<= 0", f"nats; {where}")
        yield Result("packed / one response a pass", speed / rates.scorer, None, f"{where}: {speed:.0f} tokens/s")


class PackedContext(Context):
    """A context whose passes all have one shape: `places` sequences of WIDTH tokens, N_NEW rows of logits each.

    Unused places and what follows a response are filled with tokens that no logit of interest depends on.
    """

    def __init__(self, model: Model, places: int):
        super().__init__(model, n_tokens=WIDTH, n_batch=places * WIDTH, n_outputs=places * N_NEW, n_seq=places)
        self.places = places

    def scores(self, items: Sequence[Item]) -> dict[int, np.ndarray]:
        """Log probabilities of the response's tokens, nats, by item."""
        result = {}
        for start in range(0, len(items), self.places):
            group = items[start : start + self.places]
            tokens = np.full((self.places, WIDTH), items[0].prompt_ids[0])
            first = np.zeros(self.places, dtype=int)  # place of the first row of logits
            for place, item in enumerate(group):
                read = _work.ids(item)[:-1]
                tokens[place, : len(read)] = read
                first[place] = min(len(item.prompt_ids) - 1, WIDTH - N_NEW)
            logits = self._decode_grid(tokens, first)
            for place, item in enumerate(group):
                skipped = len(item.prompt_ids) - 1 - first[place]
                rows = logits[place, skipped : skipped + len(item.response_ids)]
                result[item.key] = token_log_probs(rows, item.response_ids, ONE)[0]
        return result

    def _decode_grid(self, tokens: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Logits (places, N_NEW, V) of the tokens from `first` on."""
        places, width = tokens.shape
        size = places * width
        columns = np.arange(width)
        self._tokens[:size] = tokens.ravel()
        self._positions[:size] = np.tile(columns, places)
        self._sequence_pointers[:size] = self._sequence_ids.ctypes.data + 4 * np.repeat(np.arange(places), width)
        has_logits = (columns >= first[:, None]) & (columns < first[:, None] + N_NEW)
        self._logit_mask[:size] = has_logits.ravel()
        self._batch.n_tokens = size
        for sequence in range(places):
            self.forget(sequence)
        status = library().llama_decode(self._open(), self._batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status} for {places} places")
        pointer = library().llama_get_logits(self._open())
        shape = (places * N_NEW, self._model.n_vocab)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=shape).reshape(
            places, N_NEW, -1
        )


def _beside_llama_bench(model: Model, rates: Rates, name: str) -> Iterator[Result]:
    """llama.cpp's own figures for the same file, and the limit of the card's memory."""
    program = os.environ.get("LLAMA_BENCH") or shutil.which("llama-bench")
    if program is None:
        yield Result("scorer / llama-bench", None, None, "not measured: no llama-bench on the PATH or in LLAMA_BENCH")
        return
    arguments = [program, "-m", str(model.path), "-p", str(BLOCK), "-n", "128", "-ngl", "99", "-o", "json"]
    report = json.loads(subprocess.run(arguments, capture_output=True, check=True, text=True).stdout)
    speed = {("reading" if test["n_prompt"] else "drawing"): test["avg_ts"] for test in report}
    detail = f"{name}; {rates.scorer:.0f} against {speed['reading']:.0f} tokens/s in passes of {BLOCK}"
    yield Result("scorer / llama-bench, reading", rates.scorer / speed["reading"], None, detail)
    bandwidth = next((bytes_ for part, bytes_ in BANDWIDTH.items() if part in name), None)
    limit = None if bandwidth is None else bandwidth / model.path.stat().st_size
    detail = f"{name}; llama-bench, one token a pass: {speed['drawing']:.0f} tokens/s"
    yield Result(
        "one token a pass / what the memory can carry",
        None if limit is None else speed["drawing"] / limit,
        None,
        detail,
    )


def _card() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "a GPU without nvidia-smi"


def _responses(model: Model, n_slots: int) -> dict[int, tuple[int, ...]]:
    requests = _work.requests(model, _work.PROMPTS[:N_ITEMS])
    responses = generate(model, requests, ONE, N_NEW, n_slots, cache_tokens=CACHE_TOKENS)
    return {response.key: response.token_ids for response in responses}


def _items(model: Model) -> list[Item]:
    token_ids = _responses(model, SLOTS[1])
    requests = _work.requests(model, _work.PROMPTS[:N_ITEMS])
    return [Item(request.key, request.prompt_ids, token_ids[request.key]) for request in requests]


def _scores(model: Model, items: Sequence[Item]) -> dict[int, np.ndarray]:
    return {key: scored.token_logprobs for key, (scored,) in score(model, items, [ONE])}


def _apart(one: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> float:
    """The greatest difference, nats, over the items of both."""
    return max(float(np.abs(one[key] - values).max()) for key, values in other.items())


def _seconds(work: Callable[[], object]) -> float:
    """The median time, after a first run that is not counted."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
