"""The ablation of a configuration: settings, blocks, and where their data come from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from arena_cje.ablation import grid
from arena_cje.ablation.grid import Switches
from arena_cje.ablation.populations import Simulated
from arena_cje.config import scoring
from arena_cje.config.records.values import HUMAN
from arena_cje.diagnostics.thresholds import with_overrides
from arena_cje.errors import UserError, did_you_mean
from arena_cje.estimation.calibration import MIN_LABELLED_PROMPTS
from arena_cje.estimation.records import Options

if TYPE_CHECKING:
    from arena_cje.ablation.grid import Block, Setting
    from arena_cje.config.records import Config
    from arena_cje.diagnostics.thresholds import Thresholds

OPTIONS = {one.name for one in fields(Options)} - {"seed"}
FULL = "1.0"


@dataclass(frozen=True)
class Plan:
    """The cells of an ablation and how they are estimated."""

    settings: list[Setting]
    coverages: list[float]
    blocks: list[Block]
    covariates: tuple[str, ...]  # that some setting needs
    thresholds: Thresholds
    alpha: float

    def block(self, name: str) -> Block:
        """A block by its name."""
        return next(one for one in self.blocks if one.name == name)


def plan(config: Config) -> Plan:
    """The plan of a configuration. Raises a `UserError` for a grid that cannot be computed."""
    ablation = config.ablation
    _check(config)
    switches = Switches(
        tuple(ablation.rewards), tuple(ablation.weights), tuple(map(tuple, ablation.covariates)), tuple(ablation.judge)
    )
    analyses = {}
    for name in ablation.estimators:
        estimator, options = config.estimator_of(name)
        analyses[name] = estimator, {key: value for key, value in options.items() if key in OPTIONS}
    try:
        settings = grid.settings(analyses, switches)
        for setting in settings:
            Options(**setting.options)
    except UserError as error:
        raise UserError(f"config: `ablation`: {error}") from None
    covariates = tuple(dict.fromkeys(name for setting in settings for name in setting.covariates))
    if ablation.source == "simulated":
        _check_simulated(config, covariates)
    coverages = sorted(map(float, ablation.coverages))
    per_seed = len(coverages) * len(settings)
    blocks = grid.blocks(sorted(set(ablation.n)), ablation.seeds, per_seed, ablation.cells_per_job)
    return Plan(settings, coverages, blocks, covariates, with_overrides(config.verdict), config.analysis.alpha)


def settings_of(config: Config, planned: Plan, block: Block) -> dict[str, Any]:
    """What determines the cells of a block beside the files of its data: parameters of its job."""
    ablation = config.ablation
    cautions = scoring.cautions(config) if ablation.source == "results" and config.logged_data is None else {}
    return {
        "source": ablation.world if ablation.source == "simulated" else None,
        "target_labels": ablation.target_labels,
        "block": [block.n, block.first, block.count],
        "coverages": planned.coverages,
        "settings": [[one.name, one.estimator, dict(one.options), one.judge] for one in planned.settings],
        "judge": config.analysis.judge,
        "alpha": planned.alpha,
        "thresholds": config.verdict,
        "cautions": cautions,
    }


def truth_coverage(config: Config) -> str:
    """The coverage of the data set whose labels are the truth, where the source is `results`."""
    if config.logged_data is not None:
        return FULL
    share = config.oracle.truth_coverage
    if share is None or config.oracle.provider == HUMAN:
        raise UserError(
            "config: `ablation.source: results` needs the oracle's labels of all policies' responses: set `oracle.truth: "
            "all` (not possible with labels by people, which are divided into estimation and validation), or set `source: "
            "simulated`"
        )
    return share


def _check(config: Config) -> None:
    """Raise a `UserError` for names that do not exist, and for samples with too few labels."""
    ablation = config.ablation
    for name in ablation.estimators:
        if name not in config.analyses:
            raise UserError(
                f"config: `ablation.estimators`: unknown estimator {name!r}{did_you_mean(name, config.analyses)}; available: "
                f"{', '.join(config.analyses)}"
            )
        variant = config.variants.get(name)
        if variant is not None and variant.judge not in (None, config.analysis.judge):
            raise UserError(
                f"config: `ablation.estimators`: variant {name!r} uses another judge; an ablation uses one judge, so set it "
                "as `analysis.judge`"
            )
        if ablation.source == "results" and not config.can_run(name):
            raise UserError(f"config: `ablation.estimators`: {name!r} needs {scoring.missing_input(name, config)}")
    n, coverage = min(ablation.n), min(ablation.coverages, key=float)
    if round(n * float(coverage)) < MIN_LABELLED_PROMPTS:
        raise UserError(
            f"config: `ablation`: {n} prompts at coverage {coverage} have {round(n * float(coverage))} labels, but "
            f"calibration needs {MIN_LABELLED_PROMPTS}; use larger `n` or `coverages`"
        )
    if ablation.source == "results":
        truth_coverage(config)


def _check_simulated(config: Config, covariates: tuple[str, ...]) -> None:
    """Raise a `UserError` for a world that there is not, or that lacks what a setting reads."""
    name = config.ablation.world
    population = Simulated.named(name)
    missing = [one for one in covariates if one not in population.covariates]
    if missing:
        raise UserError(
            f"config: `ablation.covariates`: world {name!r} lacks {missing[0]!r}; it has "
            f"{', '.join(population.covariates) or 'none, and arena_length has style'}"
        )
    if grid.DISTRIBUTION in config.ablation.judge and not population.world.judge_spread:
        raise UserError(
            f"config: `ablation.judge`: the judge of world {name!r} has no distribution; arena_length has one"
        )
