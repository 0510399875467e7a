"""Estimators by name, one module each: `raw_ips.py` is the estimator `raw-ips`.

A module has the formula in its docstring, the inputs that it `NEEDS` ("log_ratio", "fresh_score") and one function
`estimate(sample, options) -> Point`. Optional constants: `NORMALISED = False` for weights whose mean is not one,
`LABEL_TERM = True` for an estimator that always has the label term.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from arena_cje.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from types import ModuleType

NAMES = tuple(sorted(m.name.replace("_", "-") for m in iter_modules(__path__) if not m.name.startswith("_")))


def get(name: str) -> ModuleType:
    """The module of an estimator; raises a `UserError` for an unknown name."""
    if name not in NAMES:
        raise UserError(f"unknown estimator {name!r}{did_you_mean(name, NAMES)}; available: {', '.join(NAMES)}")
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def needs_draws(name: str) -> bool:
    """Whether the estimator uses fresh draws of the target policies."""
    return "fresh_score" in get(name).NEEDS


def needs_weights(name: str) -> bool:
    """Whether the estimator uses importance weights."""
    return "log_ratio" in get(name).NEEDS


def normalised(name: str) -> bool:
    """Whether the weights of the estimator, if it has any, have mean one."""
    return getattr(get(name), "NORMALISED", True)
