"""Cut one shard of the prompts out of the source."""

from pathlib import Path

from arena_cje import prompts, schemas
from arena_cje.jobs import job

with job(snakemake):
    params = snakemake.params
    rows = prompts.sample(Path(snakemake.input[0]), n=params.n, seed=params.seed)
    schemas.PROMPTS.write(snakemake.output[0], prompts.cut(rows, snakemake.wildcards.shard, params.size))
