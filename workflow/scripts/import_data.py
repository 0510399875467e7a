"""Read data brought along: keep labels on the share asked for, write the data set that the analysis reads."""

from pathlib import Path

from arena_cje.data import schemas, write
from arena_cje.data.reading import Reading
from arena_cje.data.user_data import bring
from arena_cje.stages.jobs import job, report

with job(snakemake) as log:
    params, given = snakemake.params, snakemake.input
    reading = Reading(scale=params.scale)
    brought = bring(
        Path(given.logged),
        Path(params.fresh_draws) if params.fresh_draws else None,
        coverage=float(snakemake.wildcards.coverage),
        seed=params.seed,
        target_labels=params.target_labels,
        base_policy=params.base_policy,
        probes=params.probes,
        calibration_data=given.calibration or None,
        reading=reading,
    )
    summary = brought.summary | {
        "coverage": snakemake.wildcards.coverage,
        "provenance": {"seed": params.seed, "code": params.code},
    }
    report(log, summary)
    folder = Path(snakemake.output.dataset).parent
    for policy, rows in brought.fresh.items():
        write.write_draws(folder / "fresh_draws" / f"{policy}.jsonl", rows, reading)
    if brought.calibration is not None:
        write.write_calibration(folder / "calibration_data.jsonl", brought.calibration, reading)
    write.write_logged(snakemake.output.dataset, brought.logged, reading)
    schemas.write_json(snakemake.output.summary, summary)
