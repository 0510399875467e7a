"""What labelling is about: texts, tasks that show them, votes on a scale."""

from __future__ import annotations

from dataclasses import dataclass

from arena_cje.errors import UserError


@dataclass(frozen=True)
class Scale:
    """The scale that raters vote on; a label is a vote mapped to [0, 1]."""

    low: float = 1.0
    high: float = 5.0
    step: float = 1.0  # distance of neighbouring votes

    def __post_init__(self) -> None:
        n_steps = (self.high - self.low) / self.step if self.step > 0 else 0
        if n_steps < 1 or abs(n_steps - round(n_steps)) > 1e-9:
            raise UserError(
                f"scale [{self.low:g}, {self.high:g}] with step {self.step:g}: expected low < high and a step above 0 that "
                "leads from one to the other"
            )

    @property
    def n_points(self) -> int:
        """Number of possible votes."""
        return round((self.high - self.low) / self.step) + 1

    def problem(self, vote: float) -> str | None:
        """Why a vote cannot be one on this scale; None if it can."""
        if not self.low <= vote <= self.high:
            return f"is {vote:g}, expected {self.low:g} to {self.high:g}"
        steps = (vote - self.low) / self.step
        return None if abs(steps - round(steps)) < 1e-6 else f"is {vote:g}, expected steps of {self.step:g}"

    def label(self, vote: float) -> float:
        """The label in [0, 1] of a vote."""
        return (vote - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Answer:
    """A response that may be labelled. position: of its prompt in the experiment's random order."""

    position: int
    prompt_id: str
    prompt: str
    response: str
    policy: str
    draw_idx: int = 0


@dataclass(frozen=True)
class Task:
    """What raters see of a text: nothing but the text."""

    item_id: str
    prompt: str
    response: str


@dataclass(frozen=True)
class KeyRow:
    """Whose response an item is: the private side of a task. Policies with the same response share an item.

    item_id: of the text, equal in all batches; copy_id: of its repetition, on which a rater votes a second time.
    """

    item_id: str
    copy_id: str
    batch: str  # that shows the item
    prompt_id: str
    policy: str
    draw_idx: int
    inclusion_probability: float  # of the policy's response to a prompt of the experiment, in this batch or one before
    text_id: str
    repeated: bool  # does the batch show the copy too?


@dataclass(frozen=True)
class Vote:
    """A vote of a rater on a text, or that the text was skipped."""

    item_id: str
    annotator_id: str
    score: float | None  # on the raters' scale; None: skipped
    where: str  # file and row
    comment: str = ""
    submitted_at: str = ""
    duration_s: float | None = None
