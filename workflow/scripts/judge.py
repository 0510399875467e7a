"""Grade one shard of responses by a judge, or the share of it that an oracle who reads a rubric is to label."""

from functools import partial
from pathlib import Path

from arena_cje import assemble, judging, schemas, stages
from arena_cje.calls.endpoint import endpoint
from arena_cje.jobs import calls, configuration, job, journal, open_model, same_tokenizer, text
from arena_cje.providers import hosted_judge, llama_cpp
from arena_cje.providers import template as templates

with job(snakemake):
    w, given, config = snakemake.wildcards, snakemake.input, configuration(snakemake)
    stage = f"judges/{w.judge}" if snakemake.rule == "judges" else snakemake.rule
    block = config.judges[w.judge] if snakemake.rule == "judges" else getattr(config, stage)
    rubric, prompt = judging.load_rubric(Path(given.rubric)), text(given.system_prompt)
    rows, known = schemas.RESPONSES.read(given.responses), None
    if stage == "oracle":
        how = snakemake.params
        rows = stages.labelled(rows, coverage=float(w.coverage), start=how.start, draws=how.draws)
        known = {row["item"]: row for row in schemas.GRADES.read(given.lower)} if given.lower else None
    kept = {"known": known, "distributions": getattr(block, "uncertainty", None) == "distribution"}
    if block.hosted:
        template = templates.load(given.template) if given.template else None
        judge = hosted_judge.of(endpoint(block, config.providers), block, rubric, prompt, template)
        where = f"calls/{stage}/{w.policy}"
        with calls(snakemake, judge.endpoint, stage, f"{w.policy}/{w.shard}", w.policy) as ask:
            grades = stages.hosted_grades(judge, stages.items(rows), ask, **kept)
    else:
        where = f"{stage}/{w.policy}"
        shared = same_tokenizer(snakemake)
        with (
            open_model(snakemake, config.models[block.model].n_ctx) as (model, sha256),
            journal(snakemake, where) as done,
        ):
            scored = schemas.SCORES.read(given.scored) if given.get("scored") else None
            at = assemble.scores_at(getattr(rubric, "temperature", None), scored)
            grader = llama_cpp.grader(model, sha256, rubric, prompt, block, config, at)
            tokens = partial(stages.response_tokens, model, system_prompt=prompt, same_tokenizer=shared)
            read = {"tokens": tokens} if rubric.kind == "likelihood" else {}
            grades = stages.grades(grader, stages.items(rows, **read), journal=done, **kept)
    place = f"results/journal/{where}/{w.shard}.jsonl"
    judging.check_unscored_early(grades, block.max_unscored, stage.replace("/", "."), place)
    schemas.GRADES.write(snakemake.output[0], grades)
