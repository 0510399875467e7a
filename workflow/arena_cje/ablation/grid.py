"""The cells of an ablation: every setting at every number of prompts, coverage and seed.

Settings cross estimators with what may be switched: calibration of rewards, calibration of weights, covariates, and how the
judge is read. A switch that an estimator does not have makes no second setting of it. A block is what one job does: all
coverages and settings at one number of prompts, for a few seeds, so that samples, masks, folds and calibrators are shared.
More seeds or more numbers of prompts add blocks and leave the finished ones as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from arena_cje import estimators

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCORE, DISTRIBUTION = "score", "distribution"  # how a setting reads the judge


@dataclass(frozen=True)
class Switches:
    """What settings differ by beside the estimator; an empty one leaves an estimator's own option as it is."""

    rewards: tuple[str, ...] = ()  # calibrated, judge
    weights: tuple[str, ...] = ()  # calibrated, raw
    covariates: tuple[tuple[str, ...], ...] = ()  # sets of covariates; () is none
    judge: tuple[str, ...] = (SCORE,)  # score, distribution

    @property
    def all_covariates(self) -> tuple[str, ...]:
        """Every covariate of any set, once."""
        return tuple(dict.fromkeys(name for names in self.covariates for name in names))


@dataclass(frozen=True)
class Setting:
    """An estimator with its options, but for the seed, and how it reads the judge."""

    name: str  # unique among the settings of an ablation
    estimator: str
    options: Mapping[str, Any]  # of `estimation.records.Options`
    judge: str = SCORE

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariates that it uses."""
        return tuple(self.options.get("covariates", ()))


@dataclass(frozen=True)
class Block:
    """The cells of one job."""

    n: int  # prompts of a sample
    first: int  # seed
    count: int  # of seeds

    @property
    def seeds(self) -> range:
        return range(self.first, self.first + self.count)

    @property
    def name(self) -> str:
        """File name of the block, with its folder and without a suffix."""
        return f"n{self.n}/{self.first:05d}"


def blocks(sizes: Sequence[int], seeds: int, cells_per_seed: int, cells_per_job: int) -> list[Block]:
    """The blocks of an ablation in their order.

    cells_per_seed: coverages times settings; cells_per_job: how many cells a block may have, if it has more than one seed.
    """
    step = max(1, cells_per_job // cells_per_seed)
    return [Block(n, first, min(step, seeds - first)) for n in sizes for first in range(0, seeds, step)]


def settings(analyses: Mapping[str, tuple[str, Mapping[str, Any]]], switches: Switches) -> list[Setting]:
    """The settings of an ablation, each once.

    analyses: estimator and options by the name of an estimator or variant.
    """
    unique: dict[tuple[Any, ...], Setting] = {}
    for name, (estimator, options) in analyses.items():
        for rewards, weights, covariates, judge in product(
            switches.rewards or (None,), switches.weights or (None,), switches.covariates or (None,), switches.judge
        ):
            setting = _setting(name, estimator, dict(options), rewards, weights, covariates, judge)
            key = (setting.estimator, repr(sorted(setting.options.items())), setting.judge)
            unique.setdefault(key, setting)
    return list(unique.values())


def _setting(
    name: str,
    estimator: str,
    options: dict[str, Any],
    rewards: str | None,
    weights: str | None,
    covariates: tuple[str, ...] | None,
    judge: str,
) -> Setting:
    """One combination; its name lists the options that differ from the default."""
    parts = [name]
    if rewards is not None and rewards != options.get("rewards", "calibrated"):
        options["rewards"] = rewards
        parts.append("judge's scores" if rewards == "judge" else "calibrated rewards")
    if weights is not None and has_weight_option(estimator) and weights != options.get("weights", "calibrated"):
        options["weights"] = weights
        parts.append(f"{weights} weights")
    options["covariates"] = tuple(options.get("covariates", ()))
    # Judge scores that are taken as they are have no calibrator that could see a covariate.
    if options.get("rewards") == "judge":
        options |= {"covariates": (), "calibration": "monotone"}
    elif covariates is not None and covariates != options["covariates"]:
        options["covariates"] = covariates
        options["calibration"] = "two_stage" if covariates else "monotone"
        parts.append("with " + " and ".join(covariates) if covariates else "without covariates")
    if judge == DISTRIBUTION:
        parts.append("judge's distribution")
    return Setting(", ".join(parts), estimator, options, judge)


def has_weight_option(estimator: str) -> bool:
    """Whether the option `weights` changes an estimator: the doubly robust family, but for the one under raw weights."""
    both = estimators.needs_weights(estimator) and estimators.needs_draws(estimator)
    return both and not getattr(estimators.get(estimator), "LABEL_TERM", False)
