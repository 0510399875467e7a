"""Hold the estimates at one coverage against the truth: what the oracle says of every response."""

import arena_cje
from arena_cje import schemas, validation
from arena_cje.jobs import job

with job(snakemake):
    truths = {
        policy: validation.truth_of(schemas.GRADES.read(judge), schemas.GRADES.read(oracle))
        for policy, judge, oracle in zip(
            snakemake.params.policies, snakemake.input.judge, snakemake.input.oracle, strict=True
        )
    }
    table = validation.validate([arena_cje.load(path) for path in snakemake.input.results], truths)
    schemas.write_csv(snakemake.output[0], table)
