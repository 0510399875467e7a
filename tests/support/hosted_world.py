"""A simulated API: policies with known probabilities, a judge with a nonlinear scale, an oracle that returns the value.

A response is four words, each drawn with the probabilities that belong to the system prompt, and an end token. Its log
probability is exact, and so are importance weights. Its value is the mean worth of its words; the judge's score is the square.

    log p(a | x) = sum_t log p[word_t]     V(policy) = sum_w p[w] worth[w]
"""

from __future__ import annotations

import json
import math
import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

WORTH = {"bad": 0.0, "poor": 0.3, "fine": 0.7, "good": 1.0}
LENGTH = 4
DEFAULT = (0.2, 0.3, 0.3, 0.2)
PROBABILITIES = {  # of bad, poor, fine, good; by a word of the system prompt
    "parallel": (0.15, 0.25, 0.35, 0.25),
    "deliberately": (0.3, 0.35, 0.25, 0.1),
    "briefly": (0.2, 0.25, 0.3, 0.25),
    "sentences": (0.2, 0.25, 0.3, 0.25),
    "step by step": (0.15, 0.3, 0.3, 0.25),
}
LARGER = (0.1, 0.25, 0.35, 0.3)  # the larger models under every system prompt
LARGER_MODELS = ("405b", "gpt-4", "opus")

TOKEN = re.compile(r"<\|[a-z_]+\|>|\n\n| ?[A-Za-z]+|.", re.DOTALL)
QUOTED = re.compile(r"<(response-[0-9a-f]+)>\n(.*)\n</\1>", re.DOTALL)


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def probabilities(model: str, system: str) -> tuple[float, ...]:
    """Probabilities of the four words under a policy."""
    if any(name in model for name in LARGER_MODELS):
        return LARGER
    return next((values for word, values in PROBABILITIES.items() if word in system), DEFAULT)


def value(model: str, system: str) -> float:
    """The true value of a policy."""
    return float(np.dot(probabilities(model, system), list(WORTH.values())))


def worth(text: str) -> float:
    """The true value of a response. A text of other words, as a local model writes them, has values by a hash of each."""
    words = [WORTH[word] for word in text.split() if word in WORTH]
    words = words or [blake2b(word.encode(), digest_size=1).digest()[0] / 255 for word in text.split()]
    return sum(words) / len(words) if words else 0.0


def draw(model: str, system: str, *seed: Any) -> str:
    """A response, which is a function of the seed."""
    digest = blake2b(json.dumps([model, system, *seed]).encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    return " ".join(rng.choice(list(WORTH), size=LENGTH, p=probabilities(model, system)))


def reply(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the server's HTTP response to a request."""
    choice, usage = _chat(body) if path.endswith("/chat/completions") else _completion(body)
    return {
        "id": "x",
        "object": "x",
        "created": 0,
        "model": f"{body['model']}-2025",
        "system_fingerprint": "fp_1",
        "choices": [{"index": 0} | choice],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }


def _chat(body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, int]]:
    text_of_messages = "\n".join(message["content"] for message in body["messages"])
    if match := QUOTED.search(text_of_messages):
        exact = worth(match[2])
        if body.get("logprobs"):
            return _choice(exact**2), (len(tokens(text_of_messages)) + 7, 1)
        scales = {"0 to 100": (0, 100), "from 0 to 1 ": (0, 1)}
        low, high = next((scale for words, scale in scales.items() if words in text_of_messages), (1, 10))
        graded = exact if (low, high) == (0, 100) else exact**2
        text = json.dumps({"reason": "by its words", "score": round(low + graded * (high - low), 3)})
    else:
        system = next((message["content"] for message in body["messages"] if message["role"] == "system"), "")
        text = draw(body["model"], system, body["messages"][-1]["content"], body.get("seed"))
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return choice, (len(tokens(text_of_messages)) + 7, len(tokens(text)) + 1)


def _choice(score: float) -> dict[str, Any]:
    """A digit from 1 to 5 with log probabilities of two neighbours, whose mean is the score."""
    place = 1 + 4 * score
    low = min(4, int(place))
    shares = {str(low): low + 1 - place, str(low + 1): place - low}
    top = [{"token": digit, "logprob": math.log(share), "bytes": None} for digit, share in shares.items() if share > 0]
    best = max(top, key=lambda entry: entry["logprob"])
    content = [{**best, "top_logprobs": top}]
    message = {"role": "assistant", "content": best["token"]}
    return {"message": message, "logprobs": {"content": content}, "finish_reason": "length"}


def _completion(body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, int]]:
    prompt = body["prompt"]
    head, _, response = re.split(r"((?:assistant<\|end_header_id\|>\n\n)|(?:assistant\n))", prompt, maxsplit=1)
    system = re.split(r"user<\|end_header_id\|>|<\|im_start\|>user", head)[0]
    if not body.get("echo"):
        text = draw(body["model"], system, head, body.get("seed"))
        return {"text": text, "finish_reason": "stop"}, (len(tokens(prompt)), LENGTH + 1)
    probability = dict(zip(WORTH, probabilities(body["model"], system), strict=True))
    prompt_tokens = tokens(prompt[: len(prompt) - len(response)])
    response_tokens = tokens(response)
    values = [None, *[-1.0] * (len(prompt_tokens) - 1)]
    values += [math.log(probability.get(token.strip(), 1.0)) for token in response_tokens]
    n_tokens = len(prompt_tokens) + len(response_tokens)
    generated = [" fine"] * body["max_tokens"]  # one token is requested of a server for which 0 means no limit
    logprobs = {
        "tokens": [*prompt_tokens, *response_tokens, *generated],
        "token_logprobs": [*values, *[-1.0] * len(generated)],
    }
    text = prompt + "".join(generated)
    return {"text": text, "finish_reason": "length", "logprobs": logprobs}, (n_tokens, len(generated))
