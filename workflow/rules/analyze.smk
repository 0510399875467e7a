# Estimates. results/coverage_{coverage}/cje_dataset.jsonl, fresh_draws/ -> {estimator}.json, .csv, .influence.parquet
# {estimator} is an estimator, or a variant of one that the config names.


rule estimate:
    """Estimate policy values by {wildcards.estimator} at coverage {wildcards.coverage}"""
    input:
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
        draws=lambda w: draws_for(w.estimator, w.coverage),
        draw_summaries=lambda w: draw_summaries(w.estimator, w.coverage),
        calibration=lambda w: calibration_file(w.coverage),
    output:
        json="results/coverage_{coverage}/{estimator}.json",
        csv=report(
            "results/coverage_{coverage}/{estimator}.csv",
            caption="../report/estimates.rst",
            category="Tables",
            subcategory="coverage {coverage}",
            labels={"table": "{estimator}"},
        ),
        influence="results/coverage_{coverage}/{estimator}.influence.parquet",
    log:
        "logs/estimate/coverage_{coverage}/{estimator}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        options=lambda w: estimation(w.estimator)["options"],
        thresholds=lambda w: estimation(w.estimator)["thresholds"],
        decision=lambda w: estimation(w.estimator)["decision"],
        cautions=lambda w: estimation(w.estimator)["cautions"],
        code=lambda w: estimation(w.estimator)["code"],
        # Functions of the outputs, so that they make nothing stale: Snakemake does not compare them.
        estimators=lambda w, output: {w.estimator: CONFIG.estimator_of(w.estimator)[0]},
        prices=lambda w, output: unit_prices(),
    script:
        "../scripts/estimate.py"


for kind, names in RUN_TOGETHER.items():

    rule:
        """Estimate policy values at coverage {wildcards.coverage} by all estimators that need the same files"""
        name:
            f"estimate_{kind}"
        input:
            dataset="results/coverage_{coverage}/cje_dataset.jsonl",
            summary="results/coverage_{coverage}/summary.json",
            draws=lambda w, names=names: draws_for(names[0], w.coverage),
            draw_summaries=lambda w, names=names: draw_summaries(names[0], w.coverage),
            calibration=lambda w: calibration_file(w.coverage),
        output:
            result_files(names, kind="json"),
            result_files(names, kind="influence.parquet"),
            *(
                report(
                    path,
                    caption="../report/estimates.rst",
                    category="Tables",
                    subcategory="coverage {coverage}",
                    labels={"table": name},
                )
                for name, path in zip(names, result_files(names, kind="csv"))
            ),
        log:
            f"logs/estimate/coverage_{{coverage}}/{kind}.log",
        conda:
            "../../envs/stats.yaml"
        params:
            **estimation(names[0]),
            estimators=lambda w, output, names=names: {name: name for name in names},
            prices=lambda w, output: unit_prices(),
        script:
            "../scripts/estimate.py"

    prefer(f"estimate_{kind}", "estimate", when=not estimates_alone())
