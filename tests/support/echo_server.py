"""A server that echoes log probabilities of given text by a known rule."""

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


# Control tokens, words, two joined pieces that reach over a boundary, then single characters.
TOKEN = re.compile(r"<\|[a-z_]+\|>|assistant\n|\n\n+|\nSo|[a-z]+|.", re.DOTALL)


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def logprob(before: tuple[str, ...], token: str) -> float:
    """A made-up log probability in (-5, 0] that depends on everything before."""
    digest = blake2b("\0".join((*before, token)).encode(), digest_size=4).digest()
    return -5 * int.from_bytes(digest, "big") / 2**32


def logprobs(text: str) -> list[float]:
    found = tokens(text)
    return [logprob(tuple(found[:k]), token) for k, token in enumerate(found)]


class Server:
    """Echoes text with log probabilities. `shows_control`: whether control tokens are written out; `says`: what it adds."""

    def __init__(self, *, shows_control: bool = True, says: str = "", finish: str = "length", usage: bool = True):
        self.shows_control, self.says, self.finish, self.usage = shows_control, says, finish, usage
        self.asked: list[Request] = []

    def shown(self, token: str) -> str:
        return "" if not self.shows_control and token.startswith("<|") else token

    def __call__(self, requests):
        self.asked += requests
        return [self.reply(request.body) for request in requests]

    def reply(self, body) -> Reply:
        own = [self.says] if body["max_tokens"] and self.says else []
        found = [*tokens(body["prompt"]), *own]
        values = [logprob(tuple(found[:k]), token) for k, token in enumerate(found)]
        shown = [self.shown(token) for token in found]
        usage = Usage(len(found) - len(own), len(own)) if self.usage else None
        return Reply("".join(shown), self.finish, None, shown, [None, *values[1:]], usage=usage, model="toy-1")


def expected(answer: PromptResponse, writer: Writer = WRITER) -> float:
    """log p(tokens of the whole) - log p(tokens of the prompt), the prompt's own first token left out of both."""
    prompt = writer.template.render(writer.system_prompt, answer.prompt)
    whole = prompt + answer.response + (writer.template.end if answer.stopped else "")
    return math.fsum([*logprobs(whole), *(-value for value in logprobs(prompt))])
