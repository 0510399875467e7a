"""Assemble the logged data set at one coverage, and the summary of what it was made from and what was dropped."""

import json
from pathlib import Path

from arena_cje import assemble, dataset, schemas
from arena_cje.jobs import job, report

with job(snakemake) as log:
    made_from = json.loads(snakemake.params.made_from)
    rows, summary = assemble.logged_rows(
        schemas.RESPONSES.read(snakemake.input.responses),
        schemas.GRADES.read(snakemake.input.judge),
        schemas.GRADES.read(snakemake.input.oracle),
        {Path(path).stem: schemas.LOGPROBS.read(path) for path in snakemake.input.logprobs},
        base_policy=made_from["base_policy"],
    )
    models = {Path(path).stem: schemas.read_json(path) for path in snakemake.input.models}
    summary |= {
        "coverage": snakemake.wildcards.coverage,
        "provenance": made_from | {"models": models, "code": snakemake.params.code},
    }
    report(log, summary)
    dataset.write_logged(snakemake.output.dataset, rows)
    schemas.write_json(snakemake.output.summary, summary)
