"""Record what a model file is: its hash, its size, the library that runs it."""

from pathlib import Path

from arena_cje import schemas
from arena_cje.jobs import job
from arena_cje.llama.fetch import describe

with job(snakemake):
    schemas.write_json(snakemake.output[0], describe(Path(snakemake.input[0]), snakemake.params.sha256))
