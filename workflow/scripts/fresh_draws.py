"""Assemble the fresh draws of one policy."""

from arena_cje import assemble, dataset, schemas
from arena_cje.jobs import job, report

with job(snakemake) as log:
    rows, unscored = assemble.draw_rows(
        schemas.RESPONSES.read(snakemake.input.responses),
        schemas.GRADES.read(snakemake.input.judge),
        schemas.GRADES.read(snakemake.input.oracle) if snakemake.input.oracle else [],
    )
    report(log, {"n_rows": len(rows), "unscored": unscored})
    dataset.write_draws(snakemake.output[0], rows)
