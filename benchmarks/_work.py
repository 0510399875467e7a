"""What the engine is measured on: the default model, and responses to the shipped prompts that it drew itself."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje.errors import UserError
from arena_cje.llama import chat
from arena_cje.llama.distribution import Sampling, stream
from arena_cje.llama.generator import Request, generate
from arena_cje.llama.model import Model, open_model
from arena_cje.llama.scorer import Item

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "resources" / "models" / "SmolLM2-135M-Instruct.F16.gguf"
SYSTEM_PROMPT = (ROOT / "resources" / "policies" / "helpful.txt").read_text(encoding="utf-8").strip()
PROMPTS = tuple(
    json.loads(line)["prompt"]
    for line in (ROOT / "resources" / "prompts" / "default.jsonl").read_text(encoding="utf-8").splitlines()
)
N_SHORT, SHORT = 24, 32  # responses, and the most tokens of one; 32 as in the default experiment
# Four prompts to a text make about 50 tokens of prompt, so that the response is 78 % of an item.
N_LONG, LONG, PROMPTS_PER_TEXT = 4, 184, 4
N_DRAWN = 10  # of which the N_LONG longest are taken


@dataclass(frozen=True)
class Work:
    """Items to score: `short` ones like the default experiment's, `long` ones that are mostly response."""

    short: list[Item]
    long: list[Item]


def open_default() -> Model:
    """The default model, one thread, room for 2048 tokens."""
    if not MODEL.exists():
        raise UserError(f"the model file {MODEL.relative_to(ROOT)} is not there; `make run` fetches it")
    return open_model(MODEL, n_ctx=2048, n_threads=1)


def draw(model: Model) -> Work:
    """The items, the same in every run on a machine."""
    long = _items(model, requests(model, [joined(i, PROMPTS_PER_TEXT) for i in range(N_DRAWN)]), LONG)
    return Work(draw_short(model), sorted(long, key=lambda item: len(item.response_ids))[-N_LONG:])


def draw_short(model: Model) -> list[Item]:
    """The short items alone, which takes seconds."""
    return _items(model, requests(model, PROMPTS[:N_SHORT]), SHORT)


def requests(model: Model, texts: Sequence[str]) -> list[Request]:
    """A request for each text as the user's message, each with a new random stream."""
    return [
        Request(i, chat.render(model, SYSTEM_PROMPT, text), stream(0, "bench", str(i), 0))
        for i, text in enumerate(texts)
    ]


def joined(i: int, n: int) -> str:
    """The i-th `n` shipped prompts in one text."""
    return " ".join(PROMPTS[n * i : n * (i + 1)])


def ids(item: Item) -> tuple[int, ...]:
    """Prompt and response."""
    return (*item.prompt_ids, *item.response_ids)


def n_tokens(items: Iterable[Item]) -> int:
    """Tokens that are read to score the items: all but each one's last, from which nothing is predicted."""
    return sum(len(ids(item)) - 1 for item in items)


def described(items: Sequence[Item]) -> str:
    """How many items of which length."""
    response = sum(len(item.response_ids) for item in items)
    total = sum(len(ids(item)) for item in items)
    return f"{len(items)} items of {total / len(items):.0f} tokens, {response / total:.0%} response"


def words(model: Model, n: int) -> str:
    """The words of the shipped prompts, in their order, as many as make `n` tokens."""
    text = ""
    for word in itertools.cycle(" ".join(PROMPTS).split()):
        text = f"{text} {word}".lstrip()
        if len(model.tokenize(text)) >= n:
            break
    return text


def _items(model: Model, batch: Sequence[Request], max_tokens: int) -> list[Item]:
    token_ids = {response.key: response.token_ids for response in generate(model, batch, Sampling(), max_tokens)}
    return [Item(request.key, request.prompt_ids, token_ids[request.key]) for request in batch]
