"""Score one shard of base responses in one context, under every sampling that a policy there has."""

import json

from arena_cje import schemas, stages
from arena_cje.jobs import job, journal, open_model, same_tokenizer, text
from arena_cje.llama.distribution import Sampling

with job(snakemake):
    params, context = snakemake.params, snakemake.wildcards.context
    responses = schemas.RESPONSES.read(snakemake.input.responses)
    with open_model(snakemake, params.n_ctx) as (model, sha256), journal(snakemake, f"score/{context}") as kept:
        rows = stages.logprobs(
            model,
            sha256,
            responses,
            system_prompt=text(snakemake.input.system_prompt),
            samplings=[Sampling(**sampling) for sampling in json.loads(params.samplings)],
            drawn_from=Sampling(**json.loads(params.drawn_from)) if params.drawn_from else None,
            same_tokenizer=same_tokenizer(snakemake),
            journal=kept,
        )
        schemas.SCORES.write(snakemake.output[0], rows)
