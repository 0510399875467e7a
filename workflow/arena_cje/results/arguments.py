"""The arguments of `analyze`, checked before any data are read: each of a wrong type is refused in a sentence."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from arena_cje.errors import UserError, display_form
from arena_cje.estimation.records import CHOICES, LEVELS, Options

if TYPE_CHECKING:
    from collections.abc import Mapping


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("must be a number, not NaN")
    return value


Whole = Annotated[int, Field(lt=2**63)]
Number = Annotated[float, AfterValidator(_not_nan)]  # infinity is no bound
Scale = tuple[Number, Number] | None

# The choices and ranges of options are checked by `Options` itself.
TYPES = {name: {int: Whole, float: Number}.get(kind, kind) for name, kind in get_type_hints(Options).items()}
TYPES |= dict.fromkeys(CHOICES, str)
TYPES |= {
    "seed": Annotated[int, Field(ge=0, lt=2**63)],
    "n_bootstrap": Annotated[int, Field(le=10**6)],  # each is a fit
    "estimator": str,
    "oracle_coverage": Number | None,
    "alpha": Number,
    "scale": Scale,
    "judge": str | None,
    "judge_scale": Scale,
    "label_scale": Scale,
    "base_policy": str | None,
    "variant": str | None,
    "against": str | None,
    "margin": Number,
    "assume_transport": bool,
    "thresholds": dict[str, Number] | None,
    "cautions": dict[str, list[tuple[str, str, Literal[LEVELS]]]] | None,
    "provenance": dict[str, Any] | None,
}


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(TYPES[name])


def checked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with plain values of their types, those of numpy among them; raises a `UserError` for the first other."""
    return {name: _checked(name, value) for name, value in arguments.items()}


def _checked(name: str, value: Any) -> Any:
    try:
        return _adapter(name).validate_python(value)
    except ValidationError as error:
        details = error.errors()[0]
        place = ".".join(map(str, (name, *details["loc"])))
        message = " ".join(details["msg"].split()).removeprefix("Input ").removeprefix("Value error, ")
        raise UserError(
            f"analyze: {place} {message.replace('should be', 'must be')}, got {display_form(details['input'])}"
        ) from None
