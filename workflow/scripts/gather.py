"""Gather the shards of one table, or of several, each in a file of its own."""

from arena_cje.stages import joins
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    for name, path in snakemake.output.items():
        shards = snakemake.input.get(name)
        joins.join([shards] if isinstance(shards, str) else shards, path)
        log.info("%s", path)
