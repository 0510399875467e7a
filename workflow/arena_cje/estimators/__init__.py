"""Estimators by name: one file each, found by being there.

A module states its formula, declares what it `NEEDS` ("log_ratio", "fresh_score") and has one function
`estimate(sample, options) -> Point`. File `raw_ips.py` is the estimator `raw-ips`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from arena_cje.errors import UserError, nearest

if TYPE_CHECKING:
    from types import ModuleType

NAMES = tuple(sorted(m.name.replace("_", "-") for m in iter_modules(__path__) if not m.name.startswith("_")))


def get(name: str) -> ModuleType:
    """The module of an estimator."""
    if name not in NAMES:
        raise UserError(f"unknown estimator {name!r}{nearest(name, NAMES)}; available: {', '.join(NAMES)}")
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def needs_draws(name: str) -> bool:
    """Does the estimator use fresh draws of the target policies?"""
    return "fresh_score" in get(name).NEEDS


def needs_weights(name: str) -> bool:
    """Does the estimator use importance weights?"""
    return "log_ratio" in get(name).NEEDS


def normalised(name: str) -> bool:
    """Do the weights, if the estimator has any, average to one?"""
    return getattr(get(name), "NORMALISED", True)
