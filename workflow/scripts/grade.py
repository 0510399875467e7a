"""Grade one shard of responses by a judge, or the share of it that an oracle with a rubric is to label."""

from functools import partial

from arena_cje.data import label_design, schemas
from arena_cje.grading import hosted, local, plan, unscored
from arena_cje.hosted import template
from arena_cje.stages import assemble
from arena_cje.stages import local as stages
from arena_cje.stages.jobs import calls, configuration, job, journal, open_model, same_tokenizer, text

with job(snakemake):
    w, files, config = snakemake.wildcards, snakemake.input, configuration(snakemake)
    paths = {"rubric_file": files.rubric, "system_prompt_file": files.system_prompt, "template_file": files.template}
    grader = plan.load(config, w.get("grader", "oracle"), **paths)
    block, rubric, prompt = grader.block, grader.rubric, text(files.system_prompt)
    rows, known = schemas.RESPONSES.read(files.responses), None
    if grader.stage == "oracle":
        params = snakemake.params
        if files.design:
            bought = label_design.labelled(files.design, coverage=float(w.coverage), draws=params.draws)
            rows = label_design.chosen(rows, bought)
        else:
            rows = stages.labelled(rows, coverage=float(w.coverage), start=params.start, draws=params.draws)
        known = {row["item"]: row for row in schemas.GRADES.read(files.lower)} if files.lower else None
    options = {"known": known, "distributions": grader.keeps_distributions}
    if block.hosted:
        markup = template.load(files.template) if files.template else None
        judge = hosted.grader(config.endpoint(block), block, rubric, prompt, markup)
        folder = f"calls/{grader.stage}/{w.policy}"
        with calls(snakemake, judge.endpoint, grader.stage, f"{w.policy}/{w.shard}", w.policy) as ask:
            grades = stages.hosted_grades(judge, stages.items(rows), ask, **options)
    else:
        folder = f"{grader.stage}/{w.policy}"
        shared = same_tokenizer(snakemake)
        with (
            open_model(snakemake, config.models[block.model].n_ctx) as (model, sha256),
            journal(snakemake, folder) as shard_journal,
        ):
            scored = schemas.SCORES.read(files.scored) if files.get("scored") else None
            at = assemble.scores_at(getattr(rubric, "temperature", None), scored)
            judge = local.grader(model, sha256, rubric, prompt, block, config, at)
            tokens = partial(stages.response_tokens, model, system_prompt=prompt, same_tokenizer=shared)
            items = stages.items(rows, **({"tokens": tokens} if rubric.SCORES_TEXT else {}))
            grades = stages.grades(judge, items, journal=shard_journal, **options)
    place = f"results/journal/{folder}/{w.shard}.jsonl"
    unscored.check_unscored_early(grades, block.max_unscored, grader.key, place)
    if files.get("design"):
        grades = label_design.with_probabilities(grades, bought)
    schemas.GRADES.write(snakemake.output[0], grades)
