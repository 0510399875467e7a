"""Score one shard of base responses in one context behind an API."""

import json

from arena_cje import hosted_stages, schemas
from arena_cje.jobs import calls, configuration, job, text
from arena_cje.providers.hosted import writer

with job(snakemake):
    context, shard = snakemake.wildcards.context, snakemake.wildcards.shard
    config = configuration(snakemake)
    asked = writer(
        config,
        config.contexts[context],
        system_prompt=text(snakemake.input.system_prompt),
        template=snakemake.input.template or None,
    )
    with calls(snakemake, asked.endpoint, f"score/{context}", shard, context) as ask:
        rows = hosted_stages.logprobs(
            ask,
            asked,
            schemas.RESPONSES.read(snakemake.input.responses),
            samplings=json.loads(snakemake.params.samplings),
        )
        schemas.SCORES.write(snakemake.output[0], rows)
