"""Estimators by name, one module each: `raw_ips.py` is the estimator `raw-ips`.

A module has the formula in its docstring, the inputs that it `NEEDS` ("log_ratio", "fresh_score") and one function
`estimate(sample, options) -> Point`. Optional constants: `NORMALISED = False` for weights whose mean is not one,
`LABEL_TERM = True` for an estimator that always has the label term. `add` makes a module of the user's known.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from arena_cje.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from types import ModuleType

DECLARATION = re.compile(r"^NEEDS = (\([^)]*\))", re.MULTILINE)
NAMES = tuple(sorted(m.name.replace("_", "-") for m in iter_modules(__path__) if not m.name.startswith("_")))
SHIPPED = NAMES
INPUTS = ("log_ratio", "fresh_score")
_added: dict[str, Path] = {}  # files of the user's own estimators


def add(path: Path, source: str) -> None:
    """Make an estimator in a file of the user known under the file's name."""
    global NAMES
    name = path.stem.replace("_", "-")
    declared = DECLARATION.search(source)
    if name in SHIPPED or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise UserError(f"{path}: an estimator cannot have the name {name!r}; rename the file, such as my_ips.py")
    try:
        inputs = ast.literal_eval(declared[1]) if declared else None
    except (SyntaxError, ValueError):
        inputs = None
    if not isinstance(inputs, tuple) or not {*inputs} <= {*INPUTS}:
        raise UserError(f'{path}: expected a line such as NEEDS = ("log_ratio",) with some of {", ".join(INPUTS)}')
    _added[name] = path.absolute()
    NAMES = tuple(sorted({*SHIPPED, *_added}))
    needs.cache_clear()


def module_name(name: str) -> str:
    """The full name of the estimator's module; raises a `UserError` for an unknown estimator."""
    if name not in NAMES:
        raise UserError(f"unknown estimator {name!r}{did_you_mean(name, NAMES)}; available: {', '.join(NAMES)}")
    return f"{__name__}.{name.replace('-', '_')}"


def get(name: str) -> ModuleType:
    """The module of an estimator."""
    return load_file(_added[name]) if name in _added else import_module(module_name(name))


@cache
def load_file(path: Path) -> ModuleType:
    """The module in a file of the user; raises a `UserError` where it cannot be run."""
    spec = spec_from_file_location(f"arena_cje_plugin_{path.stem}", path)
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever code of the user raises
        raise UserError(f"{path}: cannot be run: {type(error).__name__}: {error}") from error
    return module


@cache
def needs(name: str) -> tuple[str, ...]:
    """The inputs that the estimator `NEEDS`, read from its source: each start of the workflow needs them; imports are slow."""
    file = _added.get(name) or Path(__file__).with_name(f"{module_name(name).rpartition('.')[2]}.py")
    return ast.literal_eval(DECLARATION.search(file.read_text(encoding="utf-8"))[1])


def needs_draws(name: str) -> bool:
    """Whether the estimator uses fresh draws of the target policies."""
    return "fresh_score" in needs(name)


def needs_weights(name: str) -> bool:
    """Whether the estimator uses importance weights."""
    return "log_ratio" in needs(name)


def normalised(name: str) -> bool:
    """Whether the weights of the estimator, if it has any, have mean one; assumed of one whose file is not known here.

    Results of a user's own estimator are shown without its file.
    """
    return name not in NAMES or getattr(get(name), "NORMALISED", True)
