# Estimates, and the table at the end of a run.
# results/coverage_{coverage}/cje_dataset.jsonl, fresh_draws/ -> {estimator}.json, .csv, .influence.parquet


def cautions(estimator):
    """What the data cannot show: targets that the base's responses cannot speak for, where weights are used."""
    weighted = "log_ratio" in estimators.get(estimator).NEEDS
    return relations.cautions(CONFIG) if weighted and CONFIG.logged_data is None else {}


rule estimate:
    """Estimate policy values by {wildcards.estimator} at coverage {wildcards.coverage}"""
    input:
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
        draws=lambda w: draw_files(w.coverage) if estimators.needs_draws(w.estimator) else [],
    output:
        json="results/coverage_{coverage}/{estimator}.json",
        csv="results/coverage_{coverage}/{estimator}.csv",
        influence="results/coverage_{coverage}/{estimator}.influence.parquet",
    log:
        "logs/estimate/coverage_{coverage}/{estimator}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        options=canonical({"seed": CONFIG.seed, **CONFIG.analysis.model_dump()}),
        thresholds=canonical(CONFIG.verdict),
        cautions=lambda w: canonical(cautions(w.estimator)),
        code=lambda w: code_hash("arena_cje.analysis", estimators.get(w.estimator).__name__),
    script:
        "../scripts/estimate.py"


def results_to_show():
    """The estimates that were asked for by name; for the whole experiment the first estimator's, at every coverage."""
    return targets.asked(workflow.dag_settings.targets) or [
        f"results/coverage_{coverage}/{ESTIMATORS[0]}.json" for coverage in CONFIG.coverages
    ]


onsuccess:
    from arena_cje.__main__ import show

    show(path for path in results_to_show() if Path(path).exists())
