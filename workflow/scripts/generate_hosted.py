"""Ask for the responses of one policy behind an API to one shard of prompts."""

from arena_cje import hosted_stages, schemas
from arena_cje.jobs import calls, configuration, job, text
from arena_cje.providers.hosted import writer

with job(snakemake):
    policy, shard = snakemake.wildcards.policy, snakemake.wildcards.shard
    config = configuration(snakemake)
    given = snakemake.input
    asked = writer(config, config.policies[policy], text(given.system_prompt), given.template)
    with calls(snakemake, asked.endpoint, "generate", f"{policy}/{shard}", policy) as ask:
        rows = hosted_stages.responses(
            ask,
            asked,
            schemas.PROMPTS.read(given.prompts),
            policy=policy,
            draws=1 if policy == config.base_policy else config.draws_per_prompt,
            seed=config.seed,
        )
        schemas.RESPONSES.write(snakemake.output[0], rows)
