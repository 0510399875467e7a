"""Score one shard of base responses in one context behind an API."""

import json

from arena_cje.data import schemas
from arena_cje.hosted.writer import writer
from arena_cje.stages import hosted as stages_hosted
from arena_cje.stages.jobs import calls, configuration, job, text

with job(snakemake):
    context, shard = snakemake.wildcards.context, snakemake.wildcards.shard
    config = configuration(snakemake)
    files = snakemake.input
    policy_writer = writer(config, config.contexts[context], text(files.system_prompt), files.template)
    with calls(snakemake, policy_writer.endpoint, "score", f"{context}/{shard}", context) as ask:
        rows = stages_hosted.logprobs(
            ask,
            policy_writer,
            schemas.RESPONSES.read(files.responses),
            samplings=json.loads(snakemake.params.scoring)["samplings"],
        )
        schemas.SCORES.write(snakemake.output[0], rows)
