"""Give the responses of one policy the labels of people, at a coverage or for validation."""

import json
from collections import Counter

from arena_cje.data import schemas
from arena_cje.labeling import tasks
from arena_cje.stages import people
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    w, files = snakemake.wildcards, snakemake.input
    responses = [row for path in files.responses for row in schemas.RESPONSES.read(path)]
    span = json.loads(snakemake.params.get("span", "null"))
    above, coverage = span or (0.0, float(w.coverage))
    key, labels = tasks.read_key(files.key), schemas.LABELS.read(files.labels)
    rows = people.grades(responses, w.policy, coverage, key, labels, above=above)
    for reason, count in Counter(row["reason"] for row in rows if row["reason"]).items():
        log.warning("%d of %d responses have no label: %s", count, len(rows), reason)
    schemas.GRADES.write(snakemake.output[0], rows)
