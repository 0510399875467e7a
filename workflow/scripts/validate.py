"""Hold the estimates at one coverage against the truth: what the oracle says of every response."""

from pathlib import Path

import arena_cje
from arena_cje.data import schemas
from arena_cje.results import validation
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    judged = {Path(path).stem: schemas.GRADES.read(path) for path in snakemake.input.judge}
    labelled = {Path(path).parent.name: schemas.GRADES.read(path) for path in snakemake.input.oracle}
    truths = {policy: validation.truth_of(judged[policy], labels) for policy, labels in labelled.items()}
    table = validation.validate([arena_cje.load(path) for path in snakemake.input.results], truths)
    for sentence in validation.poor_coverage(table):
        log.warning(sentence)
    schemas.write_csv(snakemake.output[0], table)
