"""Read data brought along: keep labels on the share asked for, write the data set that the analysis reads."""

from pathlib import Path

from arena_cje import dataset, schemas
from arena_cje.jobs import job, report

with job(snakemake) as log:
    params = snakemake.params
    rows, draws, summary = dataset.bring(
        Path(snakemake.input.logged),
        Path(params.fresh_draws) if params.fresh_draws else None,
        coverage=float(snakemake.wildcards.coverage),
        seed=params.seed,
        target_labels=params.target_labels,
        base_policy=params.base_policy,
    )
    summary |= {
        "coverage": snakemake.wildcards.coverage,
        "provenance": summary.get("provenance", {}) | {"seed": params.seed, "code": params.code},
    }
    report(log, summary)
    folder = Path(snakemake.output.dataset).parent
    for policy, own in draws.items():
        dataset.write_draws(folder / "fresh_draws" / f"{policy}.jsonl", own)
    dataset.write_logged(snakemake.output.dataset, rows)
    schemas.write_json(snakemake.output.summary, summary)
