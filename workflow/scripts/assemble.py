"""Assemble the logged data set at one coverage, and the summary of what it was made from and what was dropped."""

import json
from pathlib import Path

from arena_cje.data import schemas, write
from arena_cje.results.account import account
from arena_cje.stages import assemble, joins
from arena_cje.stages.jobs import job, report

with job(snakemake) as log:
    files, params = snakemake.input, snakemake.params
    made_from = json.loads(params.made_from)
    base = made_from["base_policy"]
    responses = schemas.RESPONSES.read(files.responses, assemble.SERVED_BY)
    grade_files = assemble.grade_files(files.judge, files.oracle, files.judges)
    grades = assemble.read_grades(grade_files, json.loads(params.max_unscored))
    joins.check_complete(responses, grades, grade_files)
    scored = {Path(path).stem: path for path in files.logprobs}
    logprobs = {name: schemas.LOGPROBS.read(path, assemble.LOGPROB_COLUMNS) for name, path in scored.items()}
    joins.check_scored(responses, logprobs, scored)
    # In declared order, which is that of tables and no parameter: another order makes nothing stale.
    targets = [name for name in snakemake.config["policies"] if name != base]
    tally, policies = assemble.Tally(), {"base_policy": base, "targets": targets}
    rows = assemble.logged_rows(schemas.RESPONSES.rows(files.responses), grades, logprobs, tally, **policies)
    write.write_logged(snakemake.output.dataset, rows)
    summary = assemble.logged_summary(tally, logprobs, **policies)
    models = {Path(path).stem: schemas.read_json(path) for path in files.models}
    served = assemble.served(base, {"generate": responses, **grades})
    summary |= {
        "coverage": snakemake.wildcards.coverage,
        "provenance": made_from | {"models": models, "served": served, "code": params.code},
    }
    if files.people:
        summary["people"] = assemble.labels_by_people(schemas.read_json(files.people))
    del responses, grades, logprobs, rows  # the account needs their memory
    if tally.n_rows:
        summary["data"] = account(snakemake.output.dataset, {}, json.loads(params.thresholds), base_policy=base)
    report(log, summary)
    schemas.write_json(snakemake.output.summary, summary)
