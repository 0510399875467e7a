"""Renders a model's chat template in a process of its own, which is limited in time and memory.

A template is a program that comes with a model file. Its sandbox keeps it from files and attributes, not from loops and
texts without end: the operating system does, and a process that it ends takes nothing with it.

As a script (`main`) this file imports nothing of the package: it starts fast, and wherever jinja2 is.
"""

from __future__ import annotations

import datetime
import functools
import json
import resource
import subprocess
import sys

SECONDS = 10  # of processor time, of a template that needs milliseconds
WAIT = 120  # seconds on a machine that is busy with other things
MOST_MEMORY = 1 << 30  # bytes
MOST_CHARACTERS = 1 << 20  # of a rendered conversation with texts of a few characters
TODAY = datetime.datetime(2024, 7, 26)  # Llama 3's own default: a prompt must not change from day to day

Conversation = tuple[tuple[str, str], ...]  # (role, content) of each message


class TemplateError(Exception):
    """A template that cannot be used, with the reason."""


@functools.cache
def rendered(template: str, bos_text: str, eos_text: str, conversations: tuple[Conversation, ...]) -> tuple[str | None, ...]:
    """The text of each conversation up to where the next response begins; None where the template refuses its roles.

    Raises a `TemplateError` for a template that fails otherwise, or that needs more time or memory than there is for it.
    """
    task = {"template": template, "bos": bos_text, "eos": eos_text, "conversations": conversations}
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
    return tuple(answer["texts"])


def main() -> None:
    """Render the task of the standard input; the answer goes to the standard output."""
    task = json.load(sys.stdin)
    import jinja2

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    try:
        template = _environment().from_string(task["template"])
        texts = [_render(template, messages, task) for messages in task["conversations"]]
        answer = {"texts": texts}
    except MemoryError:
        raise
    except jinja2.TemplateSyntaxError as error:
        answer = {"error": f"line {error.lineno}: {error.message}"}
    except Exception as error:  # whatever a template does
        answer = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    json.dump(answer, sys.stdout)


def _render(template, messages, task):  # noqa: ANN001, ANN202, types of jinja2, which is imported late
    import jinja2

    messages = [{"role": role, "content": content} for role, content in messages]
    try:
        text = template.render(
            messages=messages, bos_token=task["bos"], eos_token=task["eos"], add_generation_prompt=True
        )
    except (jinja2.TemplateError, TypeError, ValueError):
        return None
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it makes {len(text)} characters of a short conversation")
    return text


def _environment():  # noqa: ANN202
    from jinja2 import ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationTag(ext.Extension):
        """Training's `{% generation %}` block, which is its content here."""

        tags = {"generation"}

        def parse(self, parser):  # noqa: ANN001, ANN202
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[ext.LoopControlExtension, GenerationTag]
    )
    environment.globals.update(raise_exception=_raise_exception, strftime_now=TODAY.strftime)
    return environment


def _raise_exception(message: str) -> None:
    raise ValueError(message)


if __name__ == "__main__":
    main()
