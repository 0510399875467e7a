"""Plan where labels are bought: at which prompts more of them are needed, by the judge's scores of all policies."""

from pathlib import Path

from arena_cje.data import label_design, schemas
from arena_cje.stages.jobs import job

with job(snakemake):
    grades = label_design.read_grades({Path(path).stem: path for path in snakemake.input})
    schemas.LABEL_DESIGN.write(snakemake.output[0], label_design.design(grades, snakemake.params.base))
