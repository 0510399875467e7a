"""Cut one shard of the prompts out of the source."""

from pathlib import Path

from arena_cje.data import prompts as data_prompts
from arena_cje.data import schemas
from arena_cje.stages.jobs import job

with job(snakemake):
    params = snakemake.params
    rows = data_prompts.sample(Path(snakemake.input[0]), n=params.n, seed=params.seed)
    schemas.PROMPTS.write(snakemake.output[0], data_prompts.cut(rows, snakemake.wildcards.shard, params.size))
