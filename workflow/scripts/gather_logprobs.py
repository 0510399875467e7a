"""Gather the log probabilities of the base responses under one policy from the shards of its context."""

import json

import polars as pl

from arena_cje.data import schemas
from arena_cje.stages import assemble
from arena_cje.stages.jobs import job

with job(snakemake):
    scored = pl.concat([schemas.SCORES.read(path) for path in snakemake.input])
    rows = assemble.policy_logprobs(scored, **json.loads(snakemake.params.sampling))
    schemas.LOGPROBS.write(snakemake.output[0], rows.iter_rows(named=True))
