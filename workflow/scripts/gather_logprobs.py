"""Gather the log probabilities of the base responses under policies from the shards of their contexts."""

import json
from pathlib import Path

import polars as pl

from arena_cje.data import schemas
from arena_cje.stages import assemble
from arena_cje.stages.jobs import job

with job(snakemake):
    scored_as = json.loads(snakemake.params.scored_as)
    shards = {path: Path(path).parent.name for path in snakemake.input}
    scored = {
        context: pl.concat([schemas.SCORES.read(path) for path, own in shards.items() if own == context])
        for context in dict.fromkeys(shards.values())
    }
    for path in snakemake.output:
        sampling = scored_as[Path(path).stem]
        rows = assemble.policy_logprobs(scored[sampling.pop("context")], **sampling)
        schemas.LOGPROBS.write(path, rows.iter_rows(named=True))
