"""A server that returns the log probabilities of a text, as a function with a known rule."""

from __future__ import annotations

import math
import re
from hashlib import blake2b
from typing import TYPE_CHECKING

from arena_cje.calls.endpoint import Endpoint
from arena_cje.calls.request import Reply, Request, Usage
from arena_cje.hosted import template as hosted_template
from arena_cje.hosted.writer import Writer
from workflow_run import ROOT

if TYPE_CHECKING:
    from arena_cje.hosted.echo import PromptResponse

CHATML = hosted_template.load(ROOT / "resources" / "templates" / "chatml.yaml")
LLAMA = hosted_template.load(ROOT / "resources" / "templates" / "llama-3.yaml")
ENDPOINT = Endpoint("here", "fireworks", "http://127.0.0.1:1", None, 8, None, 10.0, 3, True, 0, "schema")
WRITER = Writer(ENDPOINT, "toy", "Be kind.", CHATML)


# Control tokens, words, two tokens that may span the end of the prompt, then single characters.
TOKEN = re.compile(r"<\|[a-z_]+\|>|assistant\n|\n\n+|\nSo|[a-z]+|.", re.DOTALL)


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def logprob(before: tuple[str, ...], token: str) -> float:
    """A log probability in (-5, 0] nats that is a hash of the token and all tokens before it."""
    digest = blake2b("\0".join((*before, token)).encode(), digest_size=4).digest()
    return -5 * int.from_bytes(digest, "big") / 2**32


def logprobs(text: str) -> list[float]:
    words = tokens(text)
    return [logprob(tuple(words[:k]), token) for k, token in enumerate(words)]


class Server:
    """Returns text with log probabilities. shows_control: control tokens have a text; generates: a token added to the text."""

    def __init__(self, *, shows_control: bool = True, generates: str = "", finish: str = "length", usage: bool = True):
        self.shows_control, self.generates, self.finish, self.usage = shows_control, generates, finish, usage
        self.requests: list[Request] = []

    def text_of(self, token: str) -> str:
        return "" if not self.shows_control and token.startswith("<|") else token

    def __call__(self, requests):
        self.requests += requests
        return [self.reply(request.body) for request in requests]

    def reply(self, body) -> Reply:
        generated = [self.generates] if body["max_tokens"] and self.generates else []
        all_tokens = [*tokens(body["prompt"]), *generated]
        values = [logprob(tuple(all_tokens[:k]), token) for k, token in enumerate(all_tokens)]
        texts = [self.text_of(token) for token in all_tokens]
        usage = Usage(len(all_tokens) - len(generated), len(generated)) if self.usage else None
        return Reply("".join(texts), self.finish, None, texts, [None, *values[1:]], usage=usage, model="toy-1")


def expected(pair: PromptResponse, writer: Writer = WRITER) -> float:
    """log p(tokens of prompt and response) - log p(tokens of the prompt); the first token counts in neither."""
    prompt = writer.template.render(writer.system_prompt, pair.prompt)
    whole = prompt + pair.response + (writer.template.end if pair.stopped else "")
    return math.fsum([*logprobs(whole), *(-value for value in logprobs(prompt))])
