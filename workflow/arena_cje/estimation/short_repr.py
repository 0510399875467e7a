"""How records of arrays are printed: a line with the shape of each array in place of its values."""

from __future__ import annotations

import reprlib
from dataclasses import fields
from typing import Any


class _Short(reprlib.Repr):
    """Values in short: arrays as their shapes, a few entries of long lists and mappings."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring, self.maxother, self.maxdict, self.maxlist, self.maxtuple = 60, 200, 6, 6, 6

    def repr_ndarray(self, values: Any, level: int) -> str:  # named after the type, as reprlib looks it up
        return f"array {'x'.join(map(str, values.shape))}" if values.ndim else repr(values.item())


_short = _Short()


def short_repr(record: Any) -> str:
    """The fields of a dataclass in one line; those that are None or empty are left out.

    A class has it as `__repr__ = short_repr`.
    """
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    nonempty = {name: value for name, value in values.items() if value is not None and getattr(value, "size", 1)}
    return f"{type(record).__name__}({', '.join(f'{name}={_short.repr(value)}' for name, value in nonempty.items())})"
