"""Ask for the responses of one policy behind an API to one shard of prompts."""

from arena_cje.data import schemas
from arena_cje.hosted.writer import writer
from arena_cje.stages import hosted as stages_hosted
from arena_cje.stages.jobs import calls, configuration, job, text

with job(snakemake):
    policy, shard = snakemake.wildcards.policy, snakemake.wildcards.shard
    config = configuration(snakemake)
    given = snakemake.input
    asked = writer(config, config.policies[policy], text(given.system_prompt), given.template)
    with calls(snakemake, asked.endpoint, "generate", f"{policy}/{shard}", policy) as ask:
        rows = stages_hosted.responses(
            ask,
            asked,
            schemas.PROMPTS.read(given.prompts),
            policy=policy,
            draws=1 if policy == config.base_policy else config.draws_per_prompt,
            seed=config.seed,
        )
        schemas.RESPONSES.write(snakemake.output[0], rows)
