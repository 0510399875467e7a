"""Estimate the policy values of one data set by one estimator."""

import json
from pathlib import Path

import arena_cje
from arena_cje.data import schemas
from arena_cje.provenance import sha256
from arena_cje.results import analyze
from arena_cje.stages import assemble
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    params, data = snakemake.params, snakemake.input
    summary = schemas.read_json(data.summary)
    provenance = summary["provenance"]
    drawn = [schemas.read_json(path)["served"] for path in data.drawn]
    if served := assemble.merged([provenance.get("served") or {}, *drawn]):
        provenance = provenance | {"served": served}
    result = arena_cje.analyze(
        data.dataset,
        {Path(path).stem: path for path in data.draws} or None,
        estimator=params.module,
        variant=snakemake.wildcards.estimator,
        calibration_data=data.calibration or None,
        base_policy=summary["base_policy"],
        thresholds=json.loads(params.thresholds),
        cautions=json.loads(params.cautions),
        provenance=provenance
        | {"coverage": summary["coverage"], "data_sha256": sha256(data.dataset), "analysis_code": params.code},
        **json.loads(params.options),
    )
    analyze.write(result, snakemake.output.json, snakemake.output.csv, snakemake.output.influence)
    for policy, why in result.refused.items():
        log.warning("%s is refused: %s", policy, "; ".join(why["reasons"]))
