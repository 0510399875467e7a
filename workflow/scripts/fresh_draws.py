"""Assemble the fresh draws of one policy, and the summary of who answered and what has no score."""

import json

from arena_cje.data import schemas, write
from arena_cje.stages import assemble
from arena_cje.stages.jobs import job, report

with job(snakemake) as log:
    given, made = snakemake.input, snakemake.output
    responses = schemas.RESPONSES.read(given.responses)
    files = assemble.grade_files(given.judge, given.oracle, given.judges)
    grades = assemble.read_grades(files, json.loads(snakemake.params.max_unscored))
    rows, summary = assemble.draw_rows(responses, grades)
    summary |= {"served": assemble.served(snakemake.wildcards.policy, {"generate": responses, **grades})}
    report(log, summary)
    write.write_draws(made.draws, rows)
    schemas.write_json(made.summary, summary)
