"""Label a share of the responses of one policy by the reference oracle."""

from arena_cje.data import label_design, schemas
from arena_cje.grading.reference import Oracle
from arena_cje.stages import local as stages_local
from arena_cje.stages.jobs import job, journal

with job(snakemake):
    w, files = snakemake.wildcards, snakemake.input
    responses = [row for path in files.responses for row in schemas.RESPONSES.read(path)]
    prompts = [row for path in files.prompts for row in schemas.PROMPTS.read(path)]
    references = {row["prompt_id"]: row.get("reference") for row in prompts}
    coverage, draws = float(w.coverage), snakemake.params.draws
    if files.design:
        bought = label_design.labelled(files.design, coverage=coverage, draws=draws)
        chosen = label_design.chosen(responses, bought)
    else:
        chosen = stages_local.labelled(responses, coverage=coverage, start=0, draws=draws)
    # One file for all coverages: two jobs of a policy wait for each other, so that none labels what the other has.
    with journal(snakemake, f"oracle/{w.policy}", "all") as opened:
        rows = stages_local.grades(Oracle(), stages_local.items(chosen, references=references), journal=opened)
        rows = label_design.with_probabilities(rows, bought) if files.design else rows
        schemas.GRADES.write(snakemake.output[0], rows)
