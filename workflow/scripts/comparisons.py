"""Compare all policies in pairs, for every estimator at one coverage."""

import arena_cje
from arena_cje.data import schemas
from arena_cje.report import comparisons
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    results = [arena_cje.load(path) for path in snakemake.input.results]
    found = comparisons.document(results, snakemake.wildcards.coverage)
    first = results[0].name
    log.info("%s: %s", first, found["estimators"][first]["best"]["says"])
    schemas.write_csv(snakemake.output.csv, comparisons.table(results))
    schemas.write_json(snakemake.output.json, found)
