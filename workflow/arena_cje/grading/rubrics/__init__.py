"""Rubrics: YAML files of what a judge reads and how a score in [0, 1] comes of it; one module a kind, found by being there.

A module defines one class that is derived from `base.Rubric` and whose `kind` is the module's name.
"""

from __future__ import annotations

from functools import reduce
from importlib import import_module
from operator import or_
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter, ValidationError

from arena_cje.errors import UserError, display_form
from arena_cje.grading.rubrics.base import Rubric
from arena_cje.yaml_files import read_yaml

if TYPE_CHECKING:
    from pathlib import Path

SHARED = ("base", "question")
NAMES = tuple(sorted(m.name for m in iter_modules(__path__) if m.name not in SHARED))


def get(kind: str) -> type[Rubric]:
    """The class of a kind of rubric."""
    module = import_module(f"{__name__}.{kind}")
    classes = (item for item in vars(module).values() if isinstance(item, type) and issubclass(item, Rubric))
    return next(item for item in classes if item.__module__ == module.__name__)


_RUBRIC: TypeAdapter[Rubric] = TypeAdapter(Annotated[reduce(or_, map(get, NAMES)), Field(discriminator="kind")])


def load_rubric(path: Path) -> Rubric:
    """The rubric in a YAML file."""
    try:
        return _RUBRIC.validate_python(read_yaml(path))
    except ValidationError as error:
        problem = _first_problem(error)
    raise UserError(f"{path}: not a rubric this version reads ({problem}); see resources/judges/")


def _first_problem(error: ValidationError) -> str:
    """The first finding of a validation, as a sentence."""
    finding = error.errors()[0]
    place = ".".join(str(part) for part in finding["loc"][1:])  # after the kind
    problem = finding["msg"].removeprefix("Value error, ")
    if finding["type"] not in ("missing", "value_error", "extra_forbidden"):
        problem += f", got {display_form(finding['input'])}"
    return f"{place}: {problem}" if place else problem
