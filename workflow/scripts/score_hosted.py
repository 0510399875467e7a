"""Score one shard of base responses in one context behind an API."""

import json

from arena_cje.data import schemas
from arena_cje.hosted.writer import writer
from arena_cje.stages import hosted as stages_hosted
from arena_cje.stages.jobs import calls, configuration, job, text

with job(snakemake):
    context, shard = snakemake.wildcards.context, snakemake.wildcards.shard
    config = configuration(snakemake)
    given = snakemake.input
    asked = writer(config, config.contexts[context], text(given.system_prompt), given.template)
    with calls(snakemake, asked.endpoint, "score", f"{context}/{shard}", context) as ask:
        rows = stages_hosted.logprobs(
            ask,
            asked,
            schemas.RESPONSES.read(given.responses),
            samplings=json.loads(snakemake.params.scoring)["samplings"],
        )
        schemas.SCORES.write(snakemake.output[0], rows)
