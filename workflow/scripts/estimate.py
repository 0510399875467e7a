"""Estimate the policy values of one data set by one estimator, or by several that need the same files."""

import json
from pathlib import Path

from arena_cje import estimators
from arena_cje.data import schemas
from arena_cje.data.names import policy_of
from arena_cje.provenance import sha256
from arena_cje.results import analyze
from arena_cje.stages import assemble
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    params, data = snakemake.params, snakemake.input
    summary = schemas.read_json(data.summary)
    provenance = summary["provenance"]
    draw_versions = [schemas.read_json(path)["served"] for path in data.draw_summaries]
    if served := assemble.merge_versions([provenance.get("served") or {}, *draw_versions]):
        provenance = provenance | {"served": served}
    details = {"coverage": summary["coverage"], "data_sha256": sha256(data.dataset), "analysis_code": params.code}
    settings = analyze.Settings.of(
        json.loads(params.options),
        base_policy=summary["base_policy"],
        thresholds=analyze.with_overrides(json.loads(params.thresholds)),
        decision=analyze.DecisionRule(**json.loads(params.decision)),
        provenance=provenance | details,
        prices=analyze.UnitPrices(**json.loads(params.prices)),
    )
    cautions = json.loads(params.cautions)  # reasons that concern importance weights
    results = analyze.analyze_all(
        data.dataset,
        {policy_of(Path(path).stem): path for path in data.draws} or None,
        params.estimators,
        settings,
        calibration_data=data.calibration or None,
        cautions={
            name: cautions for name, estimator in params.estimators.items() if estimators.needs_weights(estimator)
        },
        left_out=summary,
    )
    folder = Path(snakemake.output[0]).parent
    for name, result in results.items():
        files = [folder / f"{name}.{kind}" for kind in ("json", "csv", "influence.parquet")]
        analyze.write(result, *files)
        for policy, why in result.refused.items():
            log.warning("%s by %s is refused: %s", policy, name, "; ".join(why["reasons"]))
