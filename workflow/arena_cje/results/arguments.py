"""The arguments of `analyze`, checked before any data are read: each of a wrong type is refused in a sentence."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import AllowInfNan, ConfigDict, Field, TypeAdapter, ValidationError

from arena_cje.errors import UserError, shown
from arena_cje.estimation.records import CHOICES, LEVELS, Options

Scale = tuple[float, float] | None
if TYPE_CHECKING:
    from collections.abc import Mapping

UNBOUNDED = ("clip", "var_cap")  # infinity is no bound
Whole = Annotated[int, Field(lt=2**63)]

# The choices and ranges of options are checked by `Options` itself.
TYPES = {name: {int: Whole}.get(kind, kind) for name, kind in get_type_hints(Options).items()}
TYPES |= dict.fromkeys(CHOICES, str) | dict.fromkeys(UNBOUNDED, Annotated[float, AllowInfNan(True)])
TYPES |= {
    "seed": Annotated[int, Field(ge=0, lt=2**63)],
    "n_bootstrap": Annotated[int, Field(le=10**6)],  # each is a fit
    "estimator": str,
    "oracle_coverage": float | None,
    "alpha": float,
    "scale": Scale,
    "judge": str | None,
    "judge_scale": Scale,
    "label_scale": Scale,
    "base_policy": str | None,
    "variant": str | None,
    "thresholds": dict[str, float] | None,
    "cautions": dict[str, list[tuple[str, str, Literal[LEVELS]]]] | None,
    "provenance": dict[str, Any] | None,
}


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(TYPES[name], config=ConfigDict(allow_inf_nan=False))


def checked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with plain values of their types, those of numpy among them; raises a `UserError` for the first other."""
    return {name: _checked(name, value) for name, value in arguments.items()}


def _checked(name: str, value: Any) -> Any:
    try:
        return _adapter(name).validate_python(value)
    except ValidationError as error:
        details = error.errors()[0]
        place = ".".join(map(str, (name, *details["loc"])))
        message = " ".join(details["msg"].split()).removeprefix("Input ").replace("should be", "must be")
        raise UserError(f"analyze: {place} {message}, got {shown(details['input'])}") from None
