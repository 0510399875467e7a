"""All results of a run as one tidy table."""

import arena_cje
from arena_cje import files
from arena_cje.report import exports
from arena_cje.report.sources import coverage_of
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    results = [(coverage_of(path), arena_cje.load(path)) for path in snakemake.input.results]
    validation = {coverage_of(path): exports.read_validation(path) for path in snakemake.input.validation}
    table = exports.tidy(results, validation)
    log.info("%d rows, %d of them refused", len(table), (table["status"] == "refuse").sum())
    files.write_csv(snakemake.output.csv, table)
    files.replace(snakemake.output.parquet, table.write_parquet)
