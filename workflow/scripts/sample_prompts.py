"""Cut one shard out of the prompts."""

from pathlib import Path

from arena_cje.data import schemas
from arena_cje.data.prompt_sets.pool import describe, read_index
from arena_cje.stages import plan
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    pool, params = Path(snakemake.input[0]), snakemake.params
    log.info("%s", describe(read_index(pool.parent)["summary"]))
    schemas.PROMPTS.write(snakemake.output[0], plan.shard_rows(pool, params.start, params.stop, params.rows))
