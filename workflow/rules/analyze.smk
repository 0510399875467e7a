# Estimates and how they compare with the truth.
# results/coverage_{coverage}/cje_dataset.jsonl, fresh_draws/ -> {estimator}.json, .csv, .influence.parquet; validation.csv


rule estimate:
    """Estimate policy values by {wildcards.estimator} at coverage {wildcards.coverage}"""
    input:
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
        draws=lambda w: draw_files(w.coverage) if needs_draws(w.estimator) else [],
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
        cautions=canonical({} if CONFIG.logged_data else relations.cautions(CONFIG)),
        code=lambda w: code_hash("arena_cje.analysis", estimators.get(w.estimator).__name__),
    script:
        "../scripts/estimate.py"


rule validate:
    """Hold the estimates at coverage {wildcards.coverage} against the truth"""
    input:
        results=lambda w: expand(
            "results/coverage_{coverage}/{estimator}.json", coverage=w.coverage, estimator=CONFIG.estimators
        ),
        judge=expand("results/judge/{policy}.jsonl", policy=CONFIG.policies),
        oracle=expand(
            "results/oracle/{policy}/coverage_{truth}.jsonl",
            policy=CONFIG.policies,
            truth=CONFIG.oracle.truth_coverage,
        ),
    output:
        "results/coverage_{coverage}/validation.csv",
    log:
        "logs/validate/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        code=code_hash("arena_cje.validation"),
    script:
        "../scripts/validate.py"


def results_to_show():
    """The estimates that were asked for by name; for the whole experiment the first estimator's, at every coverage."""
    asked = [target for target in sorted(workflow.dag_settings.targets or []) if targets.is_estimate(target)]
    return asked or [f"results/coverage_{coverage}/{CONFIG.estimators[0]}.json" for coverage in CONFIG.coverages]


onsuccess:
    from arena_cje.__main__ import show

    show(path for path in results_to_show() if Path(path).exists())
