"""Label a share of one shard of responses by the oracle."""

from arena_cje import schemas, stages
from arena_cje.jobs import job, journal
from arena_cje.providers.reference import Oracle

with job(snakemake):
    w, params = snakemake.wildcards, snakemake.params
    responses = schemas.RESPONSES.read(snakemake.input.responses)
    wanted = stages.labelled(responses, coverage=float(w.coverage), start=params.start, draws=params.draws)
    references = {row["prompt_id"]: row.get("reference") for row in schemas.PROMPTS.read(snakemake.input.prompts)}
    known = {row["item"]: row for row in schemas.GRADES.read(snakemake.input.lower)} if snakemake.input.lower else None
    with journal(snakemake, f"oracle/{w.policy}") as kept:
        rows = stages.grades(Oracle(), stages.items(wanted, references=references), journal=kept, known=known)
        schemas.GRADES.write(snakemake.output[0], rows)
