"""Ask for the responses of one policy behind an API to one shard of prompts."""

from arena_cje.data import schemas
from arena_cje.hosted.writer import writer
from arena_cje.stages import hosted as stages_hosted
from arena_cje.stages.jobs import calls, configuration, job, text

with job(snakemake):
    policy, shard = snakemake.wildcards.policy, snakemake.wildcards.shard
    config = configuration(snakemake)
    files = snakemake.input
    policy_writer = writer(config, config.policies[policy], text(files.system_prompt), files.template)
    with calls(snakemake, policy_writer.endpoint, "generate", f"{policy}/{shard}", policy) as ask:
        rows = stages_hosted.responses(
            ask,
            policy_writer,
            schemas.PROMPTS.read(files.prompts),
            policy=policy,
            draws=config.draws(policy),
            seed=config.seed,
        )
        schemas.RESPONSES.write(snakemake.output[0], rows)
