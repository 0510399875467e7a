"""Draw one figure: which one, its file's name says."""

from pathlib import Path

import arena_cje
from arena_cje.data import schemas
from arena_cje.report import figures, sources, tidy
from arena_cje.stages.jobs import job


def drawn(figure, given):
    """The figure from the files it is drawn from."""
    truth = tidy.read_truth(given.truth) if given.get("truth") else None
    if figure == "sweep":
        return figures.sweep(sources.by_coverage(given.results), truth)
    if figure == "policy_estimates":
        return figures.policy_estimates([arena_cje.load(path) for path in given.results], truth)
    if figure == "comparison_heatmap":
        return figures.comparison_heatmap(arena_cje.load(given.result))
    summary = schemas.read_json(given.summary)
    if figure == "calibration_curve":
        result = arena_cje.load(given.result)
        beside = given.calibration or None
        logged, labelled = sources.with_calibration(given.dataset, beside, summary, result.reading)
        return figures.calibration_curve(result, logged, labelled)
    reading = sources.reading(summary, snakemake.params.get("judge"))
    logged = sources.logged(given.dataset, summary, reading)
    if figure == "weight_distributions":
        return figures.weight_distributions(logged)
    return figures.judge_distributions(logged, sources.draws(given.draws, logged, summary, reading))


with job(snakemake) as log:
    figures.save(drawn(Path(snakemake.output[0]).stem, snakemake.input), snakemake.output[0])
