"""Combine the grades of several judges for one shard of responses."""

import json

from arena_cje.data import schemas
from arena_cje.grading import grades
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    grading = json.loads(snakemake.params.grading)
    names = [stage.removeprefix("judges/") for stage in grading["members"]]
    members = {name: schemas.GRADES.read(path) for name, path in zip(names, snakemake.input, strict=True)}
    rows = grades.ensemble(members, distributions=grading["uncertainty"] == "distribution")
    log.info("%d rows, %d of them without a score", len(rows), sum(row["score"] is None for row in rows))
    schemas.GRADES.write(snakemake.output[0], rows)
