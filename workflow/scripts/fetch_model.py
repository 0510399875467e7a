"""Fetch a model of MODELS.yaml and check its hash."""

from pathlib import Path

from arena_cje.llama.fetch import fetch
from arena_cje.stages.jobs import job

with job(snakemake):
    output = Path(snakemake.output[0])
    fetch(output.name, Path(snakemake.input[0]), output)
