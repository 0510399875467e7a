"""Estimate the cells of one block of the ablation."""

from arena_cje.ablation import recorded, run
from arena_cje.ablation.plan import plan
from arena_cje.ablation.populations import Simulated
from arena_cje.config import scoring
from arena_cje.files import read_json
from arena_cje.files import replace as write
from arena_cje.stages.jobs import configuration, job

with job(snakemake) as log:
    config = configuration(snakemake)
    ablation, planned, wildcards = config.ablation, plan(config), snakemake.wildcards
    if ablation.source == "simulated":
        population = Simulated.named(ablation.world, ablation.target_labels)
    else:
        data = snakemake.input
        about = read_json(data.summary)
        population = recorded.load(
            data.dataset,
            recorded.draws_by_policy(data.draws) or None,
            covariates=planned.covariates,
            thresholds=planned.thresholds,
            cautions=scoring.cautions(config) if config.logged_data is None else None,
            truths=recorded.graded_truths(data.judge, data.oracle),
            base_policy=about["base_policy"],
            judge=config.analysis.judge,
            judge_scale=about.get("judge_scale"),
            label_scale=about.get("label_scale"),
        )
    block = planned.block(f"n{wildcards.n}/{wildcards.first}")
    cells = run.run_block(
        population,
        block,
        planned.coverages,
        planned.settings,
        planned.thresholds,
        alpha=planned.alpha,
        target_labels=ablation.target_labels,
    )
    write(snakemake.output[0], cells.write_parquet)
    seconds = cells.unique(["coverage", "seed", "setting"])["seconds"]
    log.info("%d cells of n = %d, %.1f processor seconds", len(seconds), block.n, seconds.sum())
