"""Populations with a known truth, and samples of them.

    simulated   a world of `worlds`: its truth is exact, each seed draws new prompts
    recorded    a data set whose labels are the truth: the mean label of each policy, with its standard error, over all of
                its prompts; each seed takes n of them at random

The labels of a sample are kept on its first prompts in a random order, the same for every policy and coverage: a higher
coverage adds labels. Labels of the targets are for the truth; estimates use only the share of them that an ablation sets.
Where a data set has fewer labels than a coverage needs, all of them are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from arena_cje import simulate
from arena_cje.ablation.grid import DISTRIBUTION
from arena_cje.ablation.worlds import COVARIATE, WORLDS
from arena_cje.errors import UserError, did_you_mean
from arena_cje.estimation.records import Draws, Logged, Reason
from arena_cje.results.validation import Truth, truth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.ablation.grid import Setting
    from arena_cje.simulate import World

Policies = Mapping[str, Draws]


@dataclass(frozen=True)
class Sample:
    """Some prompts of a population, with every label that there is."""

    logged: Logged
    draws: Policies
    code: np.ndarray  # (n,) int, prompt of each row
    order: np.ndarray  # (G,) prompts in the order in which they are labelled
    truth: Mapping[str, Truth]  # by policy, the base policy first


class Population(Protocol):
    """What samples are drawn from."""

    covariates: tuple[str, ...]  # that its rows have
    weight_reasons: Mapping[str, Sequence[Reason]]  # about the log probabilities of a policy, for the verdicts

    def sample(self, n: int, seed: int) -> Sample:
        """n prompts."""


@dataclass(frozen=True)
class Simulated:
    """A simulated world."""

    world: World
    target_labels: float = 0.0  # share of the prompts with labels of the targets' own draws
    weight_reasons: Mapping[str, Sequence[Reason]] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str, target_labels: float = 0.0) -> Simulated:
        """By the name of a world."""
        if name not in WORLDS:
            raise UserError(
                f"ablation.world: unknown world {name!r}{did_you_mean(name, WORLDS)}; available: {', '.join(WORLDS)}"
            )
        return cls(WORLDS[name], target_labels)

    @property
    def covariates(self) -> tuple[str, ...]:
        return (COVARIATE,) if self.world.judge_style else ()

    def sample(self, n: int, seed: int) -> Sample:
        full = replace(self.world, coverage=1.0, target_labels=1.0 if self.target_labels else 0.0)
        logged, draws, values = simulate.draw(full, n, seed)
        code = np.unique(logged.prompt_id, return_inverse=True)[1]
        order = _rng(n, seed).permutation(code.max() + 1)
        return Sample(logged, draws, code, order, {policy: (value, 0.0) for policy, value in values.items()})


@dataclass(frozen=True)
class Recorded:
    """A data set with labels of the base policy and of targets' own draws."""

    logged: Logged
    draws: Policies
    truth: Mapping[str, Truth]
    covariates: tuple[str, ...] = ()
    weight_reasons: Mapping[str, Sequence[Reason]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        logged: Logged,
        draws: Policies,
        *,
        covariates: tuple[str, ...] = (),
        weight_reasons: Mapping[str, Sequence[Reason]] | None = None,
        truths: Mapping[str, Truth] | None = None,
    ) -> Recorded:
        """From arrays with all their labels; truths: where they are known by labels that are not in the arrays.

        Raises a `UserError` where no target has a truth.
        """
        by_policy = {logged.base_policy: truth(logged.oracle_label[:, None], logged.judge_score[:, None])}
        by_policy |= {policy: truth(one.oracle_label, one.judge_score) for policy, one in draws.items()}
        by_policy |= truths or {}
        by_policy |= {policy: (np.nan, np.nan) for policy in logged.policies if policy not in by_policy}
        if not any(np.isfinite(by_policy[policy][0]) for policy in logged.policies):
            raise UserError(
                "ablation: no target policy has a known value, because its fresh draws have no oracle_label; add labels to "
                "fresh_draws or probes, or set `source: simulated`"
            )
        return cls(logged, draws, by_policy, covariates, weight_reasons or {})

    def sample(self, n: int, seed: int) -> Sample:
        code = np.unique(self.logged.prompt_id, return_inverse=True)[1]
        prompts = code.max() + 1
        if n > prompts:
            raise UserError(f"ablation.n: {n} prompts, but the data set has {prompts}; remove {n} from the list")
        order = _rng(n, seed).permutation(prompts)[:n]
        rows = np.flatnonzero(np.isin(code, order))
        position = np.full(prompts, -1)
        position[np.sort(order)] = np.arange(n)
        return Sample(
            _rows_of_logged(self.logged, rows),
            {policy: _rows_of_draws(one, rows) for policy, one in self.draws.items()},
            position[code[rows]],
            position[order],
            self.truth,
        )


def _rng(n: int, seed: int) -> np.random.Generator:
    """The random order of the prompts of a sample."""
    return np.random.default_rng([seed, n])


def _rows_of_logged(logged: Logged, rows: np.ndarray) -> Logged:
    names = ("prompt_id", "log_ratio", "judge_score", "oracle_label")
    optional = ("covariates", "judge_points", "judge_mass", "token_logprob", "cluster_id")
    return replace(logged, **_selected(logged, (*names, *optional), rows))


def _rows_of_draws(draws: Draws, rows: np.ndarray) -> Draws:
    names = ("judge_score", "oracle_label", "covariates", "judge_points", "judge_mass")
    return replace(draws, **_selected(draws, names, rows))


def _selected(record: Logged | Draws, names: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
    values = {name: getattr(record, name) for name in names}
    return {name: value[rows] for name, value in values.items() if value is not None}


def masked(sample: Sample, coverage: float, target_labels: float) -> tuple[Logged, dict[str, Draws]]:
    """The sample with labels on a share of its prompts; target_labels: the share with labels of the targets' own draws."""
    logged = replace(sample.logged, oracle_label=_masked_labels(sample.logged.oracle_label, sample, coverage))
    draws = {
        policy: replace(one, oracle_label=_masked_labels(one.oracle_label, sample, target_labels))
        for policy, one in sample.draws.items()
    }
    return logged, draws


def _masked_labels(label: np.ndarray, sample: Sample, share: float) -> np.ndarray:
    """Labels (n, ...) of the first prompts in order that have one, as many as the share; NaN elsewhere."""
    labelled = ~np.isnan(label)
    has_label = np.zeros(len(sample.order), bool)
    has_label[sample.code[labelled if label.ndim == 1 else labelled.any(axis=1)]] = True
    prompts = sample.order[has_label[sample.order]][: round(share * len(sample.order))]
    rows = np.isin(sample.code, prompts)
    return np.where(rows if label.ndim == 1 else rows[:, None], label, np.nan)


def as_read(
    logged: Logged, draws: Policies, setting: Setting, covariates: tuple[str, ...]
) -> tuple[Logged, dict[str, Draws]]:
    """Judge scores and covariates that a setting uses; covariates: the names of the arrays' columns."""
    missing = [name for name in setting.covariates if name not in covariates]
    if missing:
        raise UserError(
            f"ablation: setting {setting.name!r} has the covariate {missing[0]!r}, which the data lack; they have: "
            f"{', '.join(covariates) or 'none'}"
        )
    if setting.judge == DISTRIBUTION and logged.judge_points is None:
        raise UserError(
            f"ablation: setting {setting.name!r} reads a judge's distribution, which the data lack; leave `distribution` out of "
            "`ablation.judge`"
        )
    columns = [covariates.index(name) for name in setting.covariates]

    def changes(record: Logged | Draws) -> dict[str, np.ndarray | None]:
        own = None if record.covariates is None or not columns else record.covariates[..., columns]
        points = {} if setting.judge == DISTRIBUTION else {"judge_points": None, "judge_mass": None}
        return {"covariates": own} | points

    return replace(logged, **changes(logged)), {name: replace(one, **changes(one)) for name, one in draws.items()}
