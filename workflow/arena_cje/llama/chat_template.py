"""Renders a model's chat template in a process of its own, which is limited in time and memory.

A template is a program that comes with a model file. Its sandbox keeps it from files and attributes, not from loops and
texts without end: the operating system does, and a process that it ends takes nothing with it.

As a script (`main`) this file imports nothing of the package, so that it starts fast.
"""

from __future__ import annotations

import datetime
import functools
import json
import resource
import subprocess
import sys
from typing import NamedTuple

import jinja2
from jinja2 import ext, nodes, parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 10  # of processor time, of a template that needs milliseconds
WAIT = 120  # seconds on a machine that is busy with other things
MOST_MEMORY = 1 << 30  # bytes
MOST_CHARACTERS = 1 << 20  # of a rendered conversation with texts of a few characters
TODAY = datetime.datetime(2024, 7, 26)  # Llama 3's own default: a prompt must not change from day to day

Conversation = tuple[tuple[str, str], ...]  # (role, content) of each message


class Rendered(NamedTuple):
    """A rendered conversation."""

    text: str | None
    refusal: str = ""  # why there is no text


class TemplateError(Exception):
    """A template that cannot be used, with the reason."""


@functools.cache
def rendered(
    template: str, bos_text: str, eos_text: str, conversations: tuple[Conversation, ...]
) -> tuple[Rendered, ...]:
    """The text of each conversation up to where the next response begins, or why the template refuses its roles.

    Raises a `TemplateError` for a template that fails otherwise, or that needs more time or memory than there is for it.
    """
    limits = {"seconds": SECONDS, "memory": MOST_MEMORY}
    task = {"template": template, "bos": bos_text, "eos": eos_text, "conversations": conversations, "limits": limits}
    command = [sys.executable, "-X", "utf8", "-P", __file__]
    too_much = f"it needs more than {SECONDS} s or {MOST_MEMORY >> 30} GiB to render a short conversation"
    try:
        process = subprocess.run(command, input=json.dumps(task).encode(), capture_output=True, timeout=WAIT)
    except subprocess.TimeoutExpired:
        raise TemplateError(too_much) from None
    if process.returncode < 0 or b"MemoryError" in process.stderr:
        raise TemplateError(too_much)
    if process.returncode != 0:
        raise RuntimeError(f"rendering a chat template failed: {process.stderr.decode(errors='replace')}")
    answer = json.loads(process.stdout)
    if "error" in answer:
        raise TemplateError(answer["error"])
    return tuple(Rendered(*one) for one in answer["texts"])


def main() -> None:
    """Render the task of the standard input; the answer goes to the standard output."""
    task = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (task["limits"]["seconds"],) * 2)
    resource.setrlimit(resource.RLIMIT_AS, (task["limits"]["memory"],) * 2)
    try:
        template = _environment().from_string(task["template"])
        answer = {"texts": [_render(template, conversation, task) for conversation in task["conversations"]]}
    except MemoryError:
        raise
    except jinja2.TemplateSyntaxError as error:
        answer = {"error": f"line {error.lineno}: {error.message}"}
    except Exception as error:  # a template is a program, and may fail as any can
        answer = {"error": _described(error)}
    json.dump(answer, sys.stdout)


def _render(template: jinja2.Template, conversation: Conversation, task: dict[str, str]) -> Rendered:
    messages = [{"role": role, "content": content} for role, content in conversation]
    try:
        text = template.render(
            messages=messages, bos_token=task["bos"], eos_token=task["eos"], add_generation_prompt=True
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        return Rendered(None, _described(error))
    if len(text) > MOST_CHARACTERS:
        raise OverflowError(f"it makes {len(text)} characters of a short conversation")
    return Rendered(text)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[ext.LoopControlExtension, _GenerationTag]
    )
    environment.globals.update(raise_exception=_raise_exception, strftime_now=TODAY.strftime)
    return environment


class _GenerationTag(ext.Extension):
    """Training's `{% generation %}` block, which is its content here."""

    tags = {"generation"}

    def parse(self, parser: parser.Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise ValueError(message)


if __name__ == "__main__":
    main()
