"""Grade one shard of responses by a judge, or the share of it that an oracle who reads a rubric is to label."""

from functools import partial
from pathlib import Path

from arena_cje.data import schemas
from arena_cje.grading import hosted as grading_hosted
from arena_cje.grading import local as grading_local
from arena_cje.grading import rubrics, unscored
from arena_cje.hosted import template as hosted_template
from arena_cje.stages import assemble
from arena_cje.stages import local as stages_local
from arena_cje.stages.jobs import calls, configuration, job, journal, open_model, same_tokenizer, text

with job(snakemake):
    w, given, config = snakemake.wildcards, snakemake.input, configuration(snakemake)
    # By the wildcards, not by the rule's name: another workflow may use the rule under another.
    name = w.get("judge")
    stage = f"judges/{name}" if name else "oracle" if w.get("coverage") else "judge"
    block = config.graders[stage]
    rubric, prompt = rubrics.load_rubric(Path(given.rubric)), text(given.system_prompt)
    rows, known = schemas.RESPONSES.read(given.responses), None
    if stage == "oracle":
        how = snakemake.params
        rows = stages_local.labelled(rows, coverage=float(w.coverage), start=how.start, draws=how.draws)
        known = {row["item"]: row for row in schemas.GRADES.read(given.lower)} if given.lower else None
    kept = {"known": known, "distributions": getattr(block, "uncertainty", None) == "distribution"}
    if block.hosted:
        template = hosted_template.load(given.template) if given.template else None
        judge = grading_hosted.of(config.endpoint(block), block, rubric, prompt, template)
        where = f"calls/{stage}/{w.policy}"
        with calls(snakemake, judge.endpoint, stage, f"{w.policy}/{w.shard}", w.policy) as ask:
            grades = stages_local.hosted_grades(judge, stages_local.items(rows), ask, **kept)
    else:
        where = f"{stage}/{w.policy}"
        shared = same_tokenizer(snakemake)
        with (
            open_model(snakemake, config.models[block.model].n_ctx) as (model, sha256),
            journal(snakemake, where) as done,
        ):
            scored = schemas.SCORES.read(given.scored) if given.get("scored") else None
            at = assemble.scores_at(getattr(rubric, "temperature", None), scored)
            grader = grading_local.grader(model, sha256, rubric, prompt, block, config, at)
            tokens = partial(stages_local.response_tokens, model, system_prompt=prompt, same_tokenizer=shared)
            read = {"tokens": tokens} if rubric.kind == "likelihood" else {}
            grades = stages_local.grades(grader, stages_local.items(rows, **read), journal=done, **kept)
    place = f"results/journal/{where}/{w.shard}.jsonl"
    unscored.check_unscored_early(grades, block.max_unscored, stage.replace("/", "."), place)
    schemas.GRADES.write(snakemake.output[0], grades)
