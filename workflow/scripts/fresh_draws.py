"""Assemble the fresh draws of policies, and for each a summary of who answered and what has no score."""

import json
from pathlib import Path

from arena_cje.data import schemas, write
from arena_cje.stages import assemble, joins
from arena_cje.stages.jobs import job, report

with job(snakemake) as log:
    files_of = {name: [files] if isinstance(files, str) else files for name, files in snakemake.input.items()}
    limits = json.loads(snakemake.params.max_unscored)
    for path in map(Path, snakemake.output[: len(snakemake.output) // 2]):
        policy = path.stem
        path_of_responses = next(file for file in files_of["responses"] if Path(file).stem == policy)
        responses = schemas.RESPONSES.read(path_of_responses, assemble.SERVED_BY)
        grade_files = assemble.grade_files_of(policy, files_of)
        grades = assemble.read_grades(grade_files, limits)
        joins.check_complete(responses, grades, grade_files)
        tally = assemble.Tally()
        write.write_draws(path, assemble.draw_rows(schemas.RESPONSES.rows(path_of_responses), grades, tally))
        summary = assemble.draw_summary(tally) | {"served": assemble.served(policy, {"generate": responses, **grades})}
        report(log, summary, policy)
        schemas.write_json(path.with_suffix(".json"), summary)
