"""Generate the responses of one policy to one shard of prompts."""

import json

from arena_cje.data import schemas
from arena_cje.llama.distribution import Sampling
from arena_cje.stages import local as stages_local
from arena_cje.stages.jobs import job, journal, open_model, text

with job(snakemake):
    parameters = json.loads(snakemake.params.generation)
    policy = snakemake.wildcards.policy
    with (
        open_model(snakemake, parameters["n_ctx"]) as (model, sha256),
        journal(snakemake, f"generate/{policy}") as opened,
    ):
        rows = stages_local.responses(
            model,
            sha256,
            schemas.PROMPTS.read(snakemake.input.prompts),
            policy=policy,
            system_prompt=text(snakemake.input.system_prompt),
            sampling=Sampling(temperature=parameters["temperature"], top_p=parameters["top_p"]),
            max_tokens=parameters["max_tokens"],
            draws=parameters["draws"],
            seed=parameters["seed"],
            n_slots=snakemake.config["n_slots"],
            cache_tokens=snakemake.config["cache_tokens"],
            journal=opened,
        )
        schemas.RESPONSES.write(snakemake.output[0], rows)
