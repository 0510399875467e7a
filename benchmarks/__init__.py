"""Benchmarks: what the project claims about its speed, memory and exactness, measured on this machine.

A group is a file here and its name the file's; a module whose name begins with an underscore is none. A group has one
function, `run() -> Iterator[Result]`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from arena_cje.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from types import ModuleType

NAMES = tuple(sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_")))


def get(name: str) -> ModuleType:
    """The module of a group."""
    if name not in NAMES:
        raise UserError(
            f"unknown group of benchmarks {name!r}{did_you_mean(name, NAMES)}; available: {', '.join(NAMES)}"
        )
    return import_module(f"{__name__}.{name}")
