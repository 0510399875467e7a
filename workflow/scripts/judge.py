"""Judge one shard of responses."""

from pathlib import Path

from arena_cje import judging, schemas, stages
from arena_cje.jobs import job, journal, open_model, text
from arena_cje.providers.llama_cpp import Judge

with job(snakemake):
    rubric = judging.load_rubric(Path(snakemake.input.rubric))
    items = stages.items(schemas.RESPONSES.read(snakemake.input.responses))
    with (
        open_model(snakemake, snakemake.params.n_ctx) as (model, sha256),
        journal(snakemake, f"judge/{snakemake.wildcards.policy}") as kept,
    ):
        grader = Judge(model, sha256, rubric, text(snakemake.input.system_prompt))
        rows = stages.grades(grader, items, journal=kept)
    schemas.GRADES.write(snakemake.output[0], rows)
