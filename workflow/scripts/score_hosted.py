"""Score one shard of base responses in one context behind an API."""

import json

from arena_cje import hosted_stages, schemas
from arena_cje.jobs import calls, configuration, job, text
from arena_cje.providers.hosted import writer

with job(snakemake):
    context, shard = snakemake.wildcards.context, snakemake.wildcards.shard
    config = configuration(snakemake)
    given = snakemake.input
    asked = writer(config, config.contexts[context], text(given.system_prompt), given.template)
    with calls(snakemake, asked.endpoint, "score", f"{context}/{shard}", context) as ask:
        rows = hosted_stages.logprobs(
            ask,
            asked,
            schemas.RESPONSES.read(given.responses),
            samplings=json.loads(snakemake.params.samplings),
        )
        schemas.SCORES.write(snakemake.output[0], rows)
