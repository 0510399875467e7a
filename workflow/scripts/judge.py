"""Judge one shard of responses."""

from functools import partial
from pathlib import Path

from arena_cje import assemble, judging, schemas, stages
from arena_cje.jobs import job, journal, open_model, same_tokenizer, text
from arena_cje.providers.llama_cpp import ChoiceJudge, Judge

with job(snakemake):
    policy = snakemake.wildcards.policy
    rubric = judging.load_rubric(Path(snakemake.input.rubric))
    responses = schemas.RESPONSES.read(snakemake.input.responses)
    shared = same_tokenizer(snakemake)
    with (
        open_model(snakemake, snakemake.params.n_ctx) as (model, sha256),
        journal(snakemake, f"judge/{policy}") as kept,
    ):
        prompt = text(snakemake.input.system_prompt)
        if rubric.kind == "choices":
            grader, items = ChoiceJudge.of(model, sha256, rubric, prompt), stages.items(responses)
        else:
            tokens = partial(stages.response_tokens, model, system_prompt=prompt, same_tokenizer=shared)
            scored = schemas.SCORES.read(snakemake.input.scored) if snakemake.input.scored else None
            grader = Judge(model, sha256, rubric, prompt, assemble.scores_at(rubric.temperature, scored))
            items = stages.items(responses, tokens=tokens)
        distributions = snakemake.params.get("uncertainty") == "distribution"
        schemas.GRADES.write(
            snakemake.output[0], stages.grades(grader, items, journal=kept, distributions=distributions)
        )
