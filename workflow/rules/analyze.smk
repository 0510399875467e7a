# Estimates, and the table at the end of a run.
# results/coverage_{coverage}/cje_dataset.jsonl, fresh_draws/ -> {estimator}.json, .csv, .influence.parquet
# {estimator} is an estimator, or a variant of one that the config names.


def module_of(name):
    """The module of the estimator that runs under a name."""
    return estimators.get(CONFIG.estimator_of(name)[0])


def cautions(name):
    """What the data cannot show: targets that the base's responses cannot speak for, where weights are used."""
    weighted = CONFIG.logged_data is None and CONFIG.needs_weights(name)
    return scoring.cautions(CONFIG) if weighted else {}


def draws_for(w):
    """Fresh draws where the estimator uses them, or where labels of the targets' own may stand among them for the audit."""
    audited = CONFIG.oracle.target_coverage if CONFIG.logged_data is None else CONFIG.fresh_draws
    return draw_files(w.coverage) if audited or CONFIG.needs_draws(w.estimator) else []


def draw_summaries(w):
    """Who gave and graded these draws, where they are the workflow's own."""
    return [path.replace(".jsonl", ".json") for path in draws_for(w) if CONFIG.logged_data is None]


def draws_at_hand(coverage):
    """Fresh draws that an estimator takes, that are labelled, or that were brought along: none are made to be looked at."""
    taken = any(map(CONFIG.needs_draws, ESTIMATORS))
    given = CONFIG.logged_data is not None or CONFIG.oracle.target_coverage
    return draw_files(coverage) if taken or given else []


rule estimate:
    """Estimate policy values by {wildcards.estimator} at coverage {wildcards.coverage}"""
    input:
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
        draws=draws_for,
        drawn=draw_summaries,
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
        module=lambda w: CONFIG.estimator_of(w.estimator)[0],
        options=lambda w: canonical({"seed": CONFIG.seed, **CONFIG.estimator_of(w.estimator)[1]}),
        thresholds=canonical(CONFIG.verdict),
        cautions=lambda w: canonical(cautions(w.estimator)),
        code=lambda w: code_hash("arena_cje.results.analyze", module_of(w.estimator).__name__),
    script:
        "../scripts/estimate.py"


def results_to_show():
    """The estimates that were asked for by name; for the whole experiment the first estimator's, at every coverage."""
    return targets.estimate_files(workflow.dag_settings.targets) or [
        f"results/coverage_{coverage}/{ESTIMATORS[0]}.json" for coverage in CONFIG.coverages
    ]
