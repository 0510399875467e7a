"""Summarise the cells of the ablation in tables and figures."""

import polars as pl

from arena_cje import files
from arena_cje.ablation import summary
from arena_cje.ablation.plan import plan
from arena_cje.report import ablation_figures, theme
from arena_cje.stages.jobs import configuration, job

with job(snakemake) as log:
    config, output = configuration(snakemake), snakemake.output
    ablation = config.ablation
    cells = pl.concat([pl.read_parquet(path) for path in snakemake.input])
    table = summary.summarise(cells, ablation.apart, config.analysis.alpha)
    by_labels = {one.name for one in plan(config).settings if one.options["rewards"] != "judge"}
    for setting in by_labels.intersection(summary.without_effect(table)):
        log.warning("%s has the same numbers at all coverages: the labels have no effect on it", setting)
    source = f"the simulated world {ablation.world}" if ablation.source == "simulated" else "this run's own data"
    files.write_csv(output.table, table)
    files.write_bytes(output.text, summary.markdown(table, ablation.apart, source).encode())
    for name, figure in ablation_figures.FIGURES.items():
        theme.save(figure(table, ablation.apart), output[name])
    log.info("%d cells in %d rows", cells.n_unique(["n", "coverage", "seed", "setting"]), len(table))
