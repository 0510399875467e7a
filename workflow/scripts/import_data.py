"""Read a user's own data, mask labels above the coverage, and write the data set that the analysis reads."""

import json
from pathlib import Path

from arena_cje.config.records.values import SAME
from arena_cje.data import schemas, write
from arena_cje.data.names import file_name
from arena_cje.data.reading import Reading
from arena_cje.data.user_data import read_user_data
from arena_cje.results.account import account
from arena_cje.stages.jobs import job, report

with job(snakemake) as log:
    params, files = snakemake.params, snakemake.input
    coverage = float(snakemake.wildcards.coverage)
    reading = Reading((), params.scale, params.judge, params.judge_scale, params.label_scale)
    data = read_user_data(
        Path(files.logged),
        Path(params.fresh_draws) if params.fresh_draws else None,
        coverage=coverage,
        seed=params.seed,
        target_labels=coverage if params.target_labels == SAME else params.target_labels,
        base_policy=params.base_policy,
        probes=params.probes,
        calibration_data=files.calibration or None,
        reading=reading,
    )
    summary = data.summary | {
        "coverage": snakemake.wildcards.coverage,
        "provenance": {"seed": params.seed, "code": params.code},
    }
    folder = Path(snakemake.output.dataset).parent
    draws = {policy: folder / "fresh_draws" / f"{file_name(policy)}.jsonl" for policy in data.fresh}
    for policy, rows in data.fresh.items():
        write.write_draws(draws[policy], rows, reading)
    if data.calibration is not None:
        write.write_calibration(folder / "calibration_data.jsonl", data.calibration, reading)
    write.write_logged(snakemake.output.dataset, data.logged, reading)
    thresholds = json.loads(params.thresholds)
    summary["data"] = account(
        snakemake.output.dataset, draws, thresholds, base_policy=summary["base_policy"], reading=reading
    )
    report(log, summary)
    schemas.write_json(snakemake.output.summary, summary)
