"""What determines a grade, in one place: rules declare it, jobs make the grades from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.config.records.values import HUMAN, REFERENCE
from arena_cje.grading import hosted, reference
from arena_cje.grading.rubrics import load_rubric
from arena_cje.llama import generator, scorer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arena_cje.config.records import Config
    from arena_cje.config.records.grading import Judge, Oracle
    from arena_cje.grading.rubrics.base import Rubric

ENGINES = {"scorer": scorer.VERSION, "generator": generator.VERSION}


@dataclass(frozen=True)
class GraderPlan:
    """A judge or the oracle with its rubric and its files.

    stage: `judge`, `judges/NAME` or `oracle`, the folder of its grades. An ensemble has members instead of a rubric, the
    reference oracle and people have neither.
    """

    stage: str
    block: Judge | Oracle
    rubric: Rubric | None = None
    members: tuple[GraderPlan, ...] = ()
    rubric_file: str | None = None
    system_prompt_file: str | None = None
    template_file: str | None = None
    config: Config | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """Its key in the configuration, for sentences."""
        return self.stage.replace("/", ".")

    @property
    def is_local(self) -> bool:
        """Does a job of it run a model itself?"""
        return self.rubric is not None and not self.block.hosted

    @property
    def is_hosted(self) -> bool:
        """Do its jobs call an API?"""
        return self.rubric is not None and self.block.hosted

    @property
    def environment(self) -> str:
        """Name of the conda environment of its jobs."""
        return "llama" if self.is_local else "api" if self.is_hosted else "stats"

    @property
    def keeps_distributions(self) -> bool:
        """Whether its rows have the distribution of the judge's score."""
        return getattr(self.block, "uncertainty", None) == "distribution"

    @property
    def version(self) -> Any:
        """Numbers that are raised when the same answers, or the same model, would give other grades."""
        if self.members:
            return {member.stage.removeprefix("judges/"): member.version for member in self.members}
        if self.block.provider == HUMAN:
            return None  # all is in the files of their votes
        if self.rubric is None:
            return reference.VERSION
        return hosted.VERSION if self.block.hosted else [self.rubric.VERSION, ENGINES[self.rubric.ENGINE]]

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines grades beside the responses, the rubric, its files and the model: a rule's `params`.

        Only what this kind of rubric reads is in it, so that another key of the block makes no grade stale.
        """
        parameters: dict[str, Any] = {"provider": self.block.provider, "version": self.version}
        if self.members:
            return parameters | {
                "members": [member.stage for member in self.members],
                "uncertainty": self.block.uncertainty,
            }
        if self.rubric is None:
            return parameters
        if not self.rubric.SCORES_TEXT and hasattr(self.block, "uncertainty"):
            parameters["uncertainty"] = self.block.uncertainty
        if self.block.hosted:
            return parameters | self.rubric.hosted_parameters(self.block, self.config.endpoint(self.block))
        n_ctx = self.config.models[self.block.model].n_ctx
        return parameters | self.rubric.local_parameters(self.block) | {"n_ctx": n_ctx}

    @property
    def provenance(self) -> dict[str, Any]:
        """The grader as results record it, without how it is run."""
        if self.block.provider == REFERENCE:
            return {"provider": REFERENCE}
        if self.block.provider == HUMAN:
            how = ("aggregation", "scale", "step", "votes_per_item", "instructions")
            return {"provider": HUMAN} | self.config.labeling.model_dump(mode="json", include=set(how))
        if self.members:
            return {"ensemble": self.block.ensemble, "uncertainty": self.block.uncertainty}
        block = self.block.model_dump(
            exclude={"api_key_env", "max_unscored", "truth", "target_labels", "design", "votes"}
        )
        return block | (self.config.endpoint(self.block).identity if self.block.hosted else {})

    @property
    def max_unscored(self) -> float | None:
        """Largest share of answers that may be unusable; None where nobody reads answers, or a member has counted them."""
        return None if self.rubric is None else self.block.max_unscored

    def scored_context(self, policy: str) -> str | None:
        """The scoring context whose log probabilities of a policy's responses are the very ones that this judge computes.

        None where there is no such context: only a local likelihood judge reads log probabilities, and only the base
        policy's responses are scored.
        """
        if not self.is_local or not self.rubric.SCORES_TEXT or policy != self.config.base_policy:
            return None
        sampling = {"temperature": self.rubric.temperature, "top_p": 1.0}
        for name, context in self.config.contexts.items():
            same_prompt = (context.model, context.system_prompt) == (self.block.model, self.rubric.system_prompt)
            if same_prompt and not context.hosted and sampling in self.config.samplings(name):
                return name
        return None


def load(
    config: Config,
    stage: str,
    *,
    rubric_file: str | None = None,
    system_prompt_file: str | None = None,
    template_file: str | None = None,
) -> GraderPlan:
    """The plan of one grader, from its files."""
    rubric = load_rubric(Path(rubric_file)) if rubric_file else None
    files = (rubric_file or None, system_prompt_file or None, template_file or None)
    return GraderPlan(stage, config.graders[stage], rubric, (), *files, config)


def graders(config: Config, find: Callable[[str, str], str]) -> dict[str, GraderPlan]:
    """Plans of all judges and the oracle by stage, checked; `find` gives the file of a name in a folder of `resources/`."""
    plans: dict[str, GraderPlan] = {}
    for stage in config.graders:
        _add(stage, config, find, plans)
    return {stage: plans[stage] for stage in config.graders}


def _add(stage: str, config: Config, find: Callable[[str, str], str], plans: dict[str, GraderPlan]) -> GraderPlan:
    if stage in plans:
        return plans[stage]
    block = config.graders[stage]
    if names := getattr(block, "ensemble", ()):
        members = tuple(_add(f"judges/{name}", config, find, plans) for name in names)
        plans[stage] = GraderPlan(stage, block, None, members, config=config)
    elif block.provider in (REFERENCE, HUMAN):
        plans[stage] = GraderPlan(stage, block, config=config)
    else:
        template = find(block.template, "templates") if block.template else None
        plan = load(config, stage, rubric_file=find(block.rubric, "judges"), template_file=template)
        plan.rubric.check(block, plan.key)
        prompt = plan.rubric.system_prompt
        plans[stage] = GraderPlan(**{**vars(plan), "system_prompt_file": find(prompt, "policies") if prompt else None})
    return plans[stage]


def limits(plans: Mapping[str, GraderPlan]) -> dict[str, float]:
    """`max_unscored` by stage, of the graders whose answers are read."""
    return {stage: plan.max_unscored for stage, plan in plans.items() if plan.max_unscored is not None}


def text_files(plans: Mapping[str, GraderPlan]) -> list[str]:
    """Rubrics, system prompts and templates that grades depend on."""
    files = ((plan.rubric_file, plan.system_prompt_file, plan.template_file) for plan in plans.values())
    return sorted({file for of_plan in files for file in of_plan if file})
