"""What every kind of rubric declares: the rules, the jobs, the cost estimate and the model check read it from here."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.tokens import CallSize
    from arena_cje.config.records.grading import Grading


class Rubric(BaseModel):
    """A rubric file: what a judge reads, and how a score in [0, 1] comes of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    VERSION: ClassVar[int]  # of grades by a local model: raise when the same model would give other grades
    LOCAL_GRADER: ClassVar[str]  # which grader of `grading.local.GRADERS` reads this kind
    ENGINE: ClassVar[Literal["scorer", "generator"]]  # which part of the engine a local grader runs
    SCORES_TEXT: ClassVar[bool] = False  # does it read log probabilities of the response, without asking anything?

    kind: str
    system_prompt: str | None = None

    @property
    def n_samples(self) -> int:
        """Answers to one question."""
        return 1

    @property
    def gives_distribution(self) -> bool:
        """Whether a grade has the distribution of the judge's score."""
        return False

    def local_parameters(self, block: Grading) -> dict[str, Any]:
        """Keys of the grader's block that change a local model's grades."""
        return {}

    @abstractmethod
    def hosted_parameters(self, block: Grading, endpoint: Endpoint) -> dict[str, Any]:
        """What changes the grades of a model behind an API, beside the rubric and its files."""

    @abstractmethod
    def call_size(self, block: Grading, endpoint: Endpoint, prompts: Sequence[str]) -> CallSize:
        """Calls a response and tokens a call, without those of the system prompt and the response."""

    def check(self, block: Grading, key: str) -> None:
        """Raise a `UserError` where a grader's block and its rubric do not fit together; `key` is the block's in the config."""
        if block.template is not None:
            raise UserError(
                f"config: `{key}.template` is given, but {self.described(block)}, which asks in a chat; leave the template out"
            )
        self._check_uncertainty(block, key)

    def described(self, block: Grading) -> str:
        """The rubric's file and kind, for sentences."""
        return f"the rubric {block.rubric!r} is of kind {self.kind!r}"

    def _check_uncertainty(self, block: Grading, key: str) -> None:
        if getattr(block, "uncertainty", None) == "distribution" and not self.gives_distribution:
            raise UserError(
                f"config: `{key}.uncertainty` is 'distribution', but {self.described(block)}, which gives one number; choose a "
                "rubric of kind 'choices' (such as helpfulness.yaml) or one with `samples` above 1, or 'deterministic'"
            )
