"""Score one shard of base responses in one context, under every sampling that a policy there has."""

import json

from arena_cje.data import schemas
from arena_cje.llama.distribution import Sampling
from arena_cje.stages import local as stages_local
from arena_cje.stages.jobs import job, journal, open_model, same_tokenizer, text

with job(snakemake):
    scoring, context = json.loads(snakemake.params.scoring), snakemake.wildcards.context
    responses = schemas.RESPONSES.read(snakemake.input.responses)
    with open_model(snakemake, scoring["n_ctx"]) as (model, sha256), journal(snakemake, f"score/{context}") as opened:
        rows = stages_local.logprobs(
            model,
            sha256,
            responses,
            system_prompt=text(snakemake.input.system_prompt),
            samplings=[Sampling(**sampling) for sampling in scoring["samplings"]],
            drawn_from=Sampling(**scoring["drawn_from"]) if scoring["drawn_from"] else None,
            same_tokenizer=same_tokenizer(snakemake),
            journal=opened,
        )
        schemas.SCORES.write(snakemake.output[0], rows)
