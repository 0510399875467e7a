"""Chat templates: a conversation as plain text with a model's control tokens, for completions endpoints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from arena_cje.errors import UserError
from arena_cje.yaml_files import read_yaml

if TYPE_CHECKING:
    from pathlib import Path

PLACEHOLDER = re.compile(r"\{(system|prompt)\}")


class Template(BaseModel):
    """The chat markup of a model. resources/templates/README.md describes the keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    with_system: str
    without_system: str
    end: str = Field(min_length=1)
    control: tuple[str, ...] = Field(min_length=1)
    trim: bool = False

    @model_validator(mode="after")
    def _check_placeholders(self) -> Template:
        for key, names in (("with_system", ["system", "prompt"]), ("without_system", ["prompt"])):
            if sorted(PLACEHOLDER.findall(getattr(self, key))) != sorted(names):
                raise ValueError(f"{key} must contain {' and '.join(f'{{{name}}}' for name in names)} once each")
        if self.end not in self.control:
            raise ValueError(f"end is {self.end!r}, which is not among the control tokens; add it to `control`")
        return self

    def render(self, system_prompt: str | None, prompt: str) -> str:
        """The text up to the place where the response begins. Placeholders inside the two prompts are left as they are."""
        texts = {"prompt": prompt, "system": system_prompt or ""}
        if self.trim:
            texts = {name: text.strip() for name, text in texts.items()}
        markup = self.with_system if system_prompt else self.without_system
        return PLACEHOLDER.sub(lambda match: texts[match[1]], markup)

    def has_control_tokens(self, text: str) -> bool:
        """Whether a text contains control tokens, which an endpoint could not distinguish from those of the template."""
        return any(token in text for token in self.control)

    def without_control_tokens(self, text: str) -> str:
        """The text with its control tokens removed."""
        return re.sub("|".join(map(re.escape, self.control)), "", text)


def load(path: str | Path) -> Template:
    """The template in a YAML file; raises a `UserError` where the file is none."""
    try:
        return Template.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        problem = f"{location}: {first['msg']}".removeprefix(": ").replace("Value error, ", "")
    raise UserError(f"{path}: not a valid chat template ({problem}); resources/templates/README.md describes the keys")
