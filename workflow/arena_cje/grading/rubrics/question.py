"""What the kinds of rubric that ask a question in words have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from arena_cje.errors import nearest
from arena_cje.grading.quoting import PLACEHOLDER, SHOWN


class Question(BaseModel):
    """What the rubrics that ask in words have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: str = Field(description="what the model is asked, with {prompt} and {response} in it")
    system_prompt: str | None = Field(None, description="a file of resources/policies/ or a path; null sends none")
    description: str | None = None
    version: str | int | None = Field(None, description="for people; what a grade depends on are the texts themselves")

    @field_validator("template")
    @classmethod
    def _shows_the_response(cls, template: str) -> str:
        names = PLACEHOLDER.findall(template)
        for name in names:
            if name not in SHOWN:
                raise ValueError(
                    f"unknown placeholder {{{name}}}{nearest(name, SHOWN) or '; known: {prompt}, {response}'}"
                )
        if "response" not in names:
            raise ValueError("{response} is not in it, so the judge would not see what it judges")
        return template
