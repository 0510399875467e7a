"""Label a share of one shard of responses by the oracle."""

from arena_cje.data import schemas
from arena_cje.grading.reference import Oracle
from arena_cje.stages import local as stages_local
from arena_cje.stages.jobs import job, journal

with job(snakemake):
    w, params = snakemake.wildcards, snakemake.params
    responses = schemas.RESPONSES.read(snakemake.input.responses)
    wanted = stages_local.labelled(responses, coverage=float(w.coverage), start=params.start, draws=params.draws)
    references = {row["prompt_id"]: row.get("reference") for row in schemas.PROMPTS.read(snakemake.input.prompts)}
    known = {row["item"]: row for row in schemas.GRADES.read(snakemake.input.lower)} if snakemake.input.lower else None
    with journal(snakemake, f"oracle/{w.policy}") as kept:
        rows = stages_local.grades(
            Oracle(), stages_local.items(wanted, references=references), journal=kept, known=known
        )
        schemas.GRADES.write(snakemake.output[0], rows)
