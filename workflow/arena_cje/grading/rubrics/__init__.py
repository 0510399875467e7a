"""Rubrics: YAML files that say what a judge is asked and how a score in [0, 1] is read; one module a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from arena_cje.errors import UserError
from arena_cje.grading.rubrics.choices import Choices
from arena_cje.grading.rubrics.likelihood import Likelihood
from arena_cje.grading.rubrics.structured import Structured, temperature_of

if TYPE_CHECKING:
    from pathlib import Path

    from arena_cje.config.records import Grading

Rubric = Likelihood | Choices | Structured


_RUBRIC = TypeAdapter(Annotated[Rubric, Field(discriminator="kind")])


def load_rubric(path: Path) -> Rubric:
    """The rubric in a YAML file."""
    try:
        return _RUBRIC.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
    except ValidationError as error:
        said = _sentence(error)
    raise UserError(f"{path}: not a rubric this version reads ({said}); see resources/judges/")


def _sentence(error: ValidationError) -> str:
    """The first finding of a validation."""
    finding = error.errors()[0]
    place = ".".join(str(part) for part in finding["loc"][1:])  # after the kind
    said = finding["msg"].removeprefix("Value error, ")
    if finding["type"] not in ("missing", "value_error", "extra_forbidden"):
        said += f", got {finding['input']!r:.60}"
    return f"{place}: {said}" if place else said


def check(rubric: Rubric, block: Grading, key: str) -> None:
    """Raise a `UserError` where a judge or an oracle and its rubric do not fit together; `key` is the block's in the config."""
    n_samples = rubric.samples if isinstance(rubric, Structured) else 1
    named = f"the rubric {block.rubric!r} is of kind {rubric.kind!r}"
    if block.hosted and isinstance(rubric, Likelihood):
        if block.template is None or rubric.temperature != 1:
            raise UserError(
                f"config: `{key}` asks the provider {block.provider!r}, but {named}, which reads log probabilities of given "
                f"text: behind an API that takes a `{key}.template` and the rubric's temperature 1; or choose a rubric of kind "
                "'structured' (such as rating.yaml), or `provider: llama_cpp`"
            )
    elif block.template is not None:
        raise UserError(f"config: `{key}.template` is given, but {named}, which asks in a chat; leave the template out")
    if n_samples > 1 and temperature_of(rubric, block) == 0:
        raise UserError(
            f"config: `{key}` asks {n_samples} times by the rubric {block.rubric!r} at temperature 0, which says the same each "
            f"time; give the rubric or `{key}` a temperature above 0, or the rubric `samples: 1`"
        )
    if n_samples > 1 and "seed" in block.extra:
        raise UserError(
            f"config: `{key}.extra` has a seed, but the rubric {block.rubric!r} asks {n_samples} times, each time with a seed "
            "of its own; leave it out"
        )
    sure = isinstance(rubric, Likelihood) or (isinstance(rubric, Structured) and n_samples == 1)
    if getattr(block, "uncertainty", None) == "distribution" and sure:
        raise UserError(
            f"config: `{key}.uncertainty` is 'distribution', but {named}, which gives one number; choose a rubric of kind "
            "'choices' (such as helpfulness.yaml) or one with `samples` above 1, or 'deterministic'"
        )
