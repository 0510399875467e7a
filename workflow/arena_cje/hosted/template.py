"""A conversation as plain text with a model's control tokens in it, for endpoints that complete text."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from arena_cje.errors import UserError

PLACEHOLDER = re.compile(r"\{(system|prompt)\}")


class Template(BaseModel):
    """How a model's conversation is written down; resources/templates/README.md says what each key is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    with_system: str
    without_system: str
    end: str = Field(min_length=1)
    control: tuple[str, ...] = Field(min_length=1)
    trim: bool = False

    @model_validator(mode="after")
    def _has_places(self) -> Template:
        for name, wanted in (("with_system", ["system", "prompt"]), ("without_system", ["prompt"])):
            if sorted(PLACEHOLDER.findall(getattr(self, name))) != sorted(wanted):
                raise ValueError(f"{name} must hold {' and '.join(f'{{{one}}}' for one in wanted)} once each")
        if self.end not in self.control:
            raise ValueError(f"end is {self.end!r}, which is not among the control tokens")
        return self

    def render(self, system_prompt: str | None, prompt: str) -> str:
        """The text up to where the response begins; placeholders written in the texts stay text."""
        shown = {"prompt": prompt, "system": system_prompt or ""}
        if self.trim:
            shown = {name: text.strip() for name, text in shown.items()}
        skeleton = self.with_system if system_prompt else self.without_system
        return PLACEHOLDER.sub(lambda found: shown[found[1]], skeleton)

    def forges(self, text: str) -> bool:
        """Does a text hold control tokens, which a text endpoint could not tell from the template's own?"""
        return any(token in text for token in self.control)

    def bare(self, text: str) -> str:
        """A text without control tokens: some servers leave them out of what they echo."""
        return re.sub("|".join(map(re.escape, self.control)), "", text)


def load(path: str | Path) -> Template:
    """The template in a YAML file."""
    try:
        return Template.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
    except ValidationError as error:
        finding = error.errors()[0]
        place = ".".join(str(part) for part in finding["loc"])
        said = f"{place}: {finding['msg']}".removeprefix(": ").replace("Value error, ", "")
    raise UserError(f"{path}: not a template this version reads ({said}); see resources/templates/README.md")
