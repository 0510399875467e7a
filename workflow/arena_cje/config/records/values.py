"""Values of the configuration that several blocks have: names, shares, addresses; and the block that all derive from."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from arena_cje.data.coverage import coverage_name
from arena_cje.provenance import digest

LOCAL = "llama_cpp"  # the provider of models that run in the job itself
REFERENCE = "reference"  # the oracle that compares a response with the reference beside its prompt
HUMAN = "human"  # the oracle whose labels are votes of people
LIKELIHOOD = "likelihood.yaml"  # the rubric whose score is the likelihood of the response, without a question

Share = Annotated[float, Field(ge=0, le=1)]
Ends = tuple[float, float]  # of a scale
NAME = "[A-Za-z][A-Za-z0-9_-]*"  # name of a policy, judge or model, valid in a path
Name = Annotated[str, Field(pattern=f"^{NAME}$")]

# YAML reads 0.1 as a number and "0.1" as text; both mean the file name coverage_0.1.
Coverage = Annotated[str, BeforeValidator(coverage_name)]


def _none_or_all(value: Any) -> Any:
    """`none` is 0 and `all` is 1; other values are unchanged."""
    return {"none": 0.0, "all": 1.0}.get(value, value) if isinstance(value, str) else value


Truth = Annotated[float, BeforeValidator(_none_or_all), Field(ge=0, le=1)]
SAME = "coverage"  # the share of the targets' labels that is the share of the base's
# The names of the tags are prefixes of pydantic's own parts of a place, which `parse` leaves out of its sentences.
TargetLabels = Annotated[
    Annotated[Share, Tag("function-share")] | Annotated[Literal["coverage"], Tag("function-same")],
    Discriminator(lambda value: "function-same" if value == SAME else "function-share"),
]


def _variable_name(value: Any) -> Any:
    """The value, if it is the name of an environment variable. The error repeats no other value, which may be an API key."""
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w{0,63}", value)):
        raise ValueError("expected the name of an environment variable that holds the key (such as OPENAI_API_KEY)")
    return value


def _plain_url(value: Any) -> Any:
    """The value, if it is an address without user and password: the address is written into files."""
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"https?://[^\s/@]+(/[^\s@?#]*)?", value)):
        raise ValueError("expected an address such as http://127.0.0.1:8000/v1, without user, password or query")
    return value


KeyName = Annotated[str | None, BeforeValidator(_variable_name)]
Address = Annotated[str | None, BeforeValidator(_plain_url)]


INLINE_PROMPTS = ".arena-cje/system_prompts"  # folder of the files with the texts that a configuration has in itself


def is_text(system_prompt: str) -> bool:
    """Whether a system prompt is the text itself: several words that do not end as the name of a file does."""
    return bool(re.search(r"\s", system_prompt.strip())) and not re.search(r"\.[A-Za-z]\w{0,4}$", system_prompt.strip())


def system_prompt_file(system_prompt: str) -> str:
    """The name of the file with a system prompt: its own where it is no text, else one of its first words and a hash."""
    if not is_text(system_prompt):
        return system_prompt
    words = "-".join(re.findall(r"[a-z0-9]+", system_prompt.lower())[:5])
    return f"{INLINE_PROMPTS}/{words}-{digest(system_prompt)[:8]}.txt"


class Record(BaseModel):
    """A frozen block of the configuration that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
