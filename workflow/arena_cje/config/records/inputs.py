"""Where the data come from: prompts, or files of the user's own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from arena_cje.config.records.values import Record
from arena_cje.data.prompt_sets.language import LANGUAGES


class PromptColumns(Record):
    """Names of the columns of a prompt set that has other names for them."""

    prompt_id: str | None = Field(
        None, description="column with the id; null: `prompt_id`, or a hash of the text in a set without ids"
    )
    prompt: str | None = Field(
        None,
        description="column with the prompt: a text, a list of texts, or a list of messages (the first user message is used)",
    )
    language: str | None = Field(None, description="column with the language; null: `language`")
    flagged: str | list[str] | None = Field(
        None, description="column or columns that flag a row: true, or an object with a `flagged` that is true"
    )
    reference: str | None = Field(None, description="column with the reference of the oracle; null: `reference`")


class Prompts(Record):
    """Where the prompts come from, and which of them are taken."""

    source: str = Field(
        "prompts/default.jsonl",
        min_length=1,
        description="a file (JSONL with `prompt_id`, `prompt` and, for the reference oracle, `reference`; Parquet, JSON, CSV), a "
        "folder of `save_to_disk`, a file of `resources/`, or the id of a data set of the Hugging Face Hub",
    )
    split: str = Field("train", min_length=1, description="split of a data set that has several")
    revision: str | None = Field(
        None, description="commit, tag or branch of a data set of the hub; null: the newest commit at the first read"
    )
    columns: PromptColumns = PromptColumns()
    language: Literal[tuple(LANGUAGES)] | None = Field(
        None,
        description="language of the prompts (`en`), from a field of the data set or else from a language detector; null: any",
    )
    min_chars: int | None = Field(None, ge=1, description="length of the shortest prompt in characters; null: any")
    max_chars: int | None = Field(None, ge=1, description="length of the longest prompt in characters; null: any")
    flagged: Literal["keep", "drop"] = Field(
        "keep", description="what to do with prompts that the data set flags as toxic or offensive"
    )
    duplicates: Literal["drop", "drop_exact", "keep"] = Field(
        "drop",
        description="`drop` uses the first of prompts that are equal apart from case and white space; `drop_exact` the first of "
        "exactly equal prompts",
    )

    @model_validator(mode="after")
    def _bounds(self) -> Prompts:
        if self.min_chars and self.max_chars and self.min_chars > self.max_chars:
            raise ValueError(f"min_chars is {self.min_chars} and max_chars {self.max_chars}, so that no prompt is left")
        return self


def _files_of(value: Any) -> Any:
    """One file or several as a list; a mapping of policies to files as NAME=FILE."""
    if isinstance(value, dict):
        return [f"{name}={file}" for name, file in value.items()]
    return [value] if isinstance(value, str) else value


class ForeignData(Record):
    """Files of another tool, which are converted into logged data and fresh draws."""

    format: str = Field(description="format of the files, a module of `arena_cje.data.convert`, such as promptfoo")
    file: Annotated[list[str], BeforeValidator(_files_of), Field(min_length=1)] = Field(
        description="file or folder, a list of them, or a block with the file of each policy"
    )
    base: str | None = Field(None, description="base policy, if no policy is named `base`")
    judge: str | None = Field(None, description="scorer that is the judge, if the files have several")
    oracle: str | None = Field(None, description="scorer that gives the oracle labels")
    scales: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description='lowest and highest score of each scorer, `"*"` for all others'
    )
    columns: dict[str, str | Annotated[list[str], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="column of each field, for the format `table`; a list for `oracle_label` or a judge score has votes on the "
        "same response",
    )


LoggedData = Annotated[
    Annotated[str, Tag("function-path")] | Annotated[ForeignData, Tag("function-block")],
    Discriminator(lambda value: "function-block" if isinstance(value, dict | ForeignData) else "function-path"),
]
