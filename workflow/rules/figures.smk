# Figures of a coverage, and one over all coverages.
# {estimator}.json, cje_dataset.jsonl, fresh_draws/, validation.csv -> results/coverage_{coverage}/plots/{figure}.png
# {estimator}.json of all coverages                                 -> results/plots/sweep.png


def first_result(coverage, calibrated=False):
    """Of the first configured estimator; where asked for, of the first that calibrates its rewards, if one does."""
    fits = [name for name in ESTIMATORS if CONFIG.estimator_of(name)[1]["rewards"] != "judge"]
    name = (fits if calibrated and fits else ESTIMATORS)[0]
    return f"results/coverage_{coverage}/{name}.json"


FIGURE_CODE = code_hash("arena_cje.report.figures", "arena_cje.report.sources")


rule plot_policy_estimates:
    """Draw the estimates at coverage {wildcards.coverage}"""
    input:
        results=lambda w: estimates_at(w.coverage),
        truth=lambda w: validation_at(w.coverage),
    output:
        report(
            "results/coverage_{coverage}/plots/policy_estimates.png",
            caption="../report/policy_estimates.rst",
            category="Figures",
            subcategory="coverage {coverage}",
            labels={"figure": "policy values"},
        ),
    log:
        "logs/plots/coverage_{coverage}/policy_estimates.log",
    conda:
        "../../envs/stats.yaml"
    params:
        code=FIGURE_CODE,
    script:
        "../scripts/figures.py"


rule plot_weight_distributions:
    """Draw the importance weights at coverage {wildcards.coverage}"""
    input:
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
    output:
        report(
            "results/coverage_{coverage}/plots/weight_distributions.png",
            caption="../report/weight_distributions.rst",
            category="Figures",
            subcategory="coverage {coverage}",
            labels={"figure": "importance weights"},
        ),
    log:
        "logs/plots/coverage_{coverage}/weight_distributions.log",
    conda:
        "../../envs/stats.yaml"
    params:
        judge=CONFIG.analysis.judge,
        code=FIGURE_CODE,
    script:
        "../scripts/figures.py"


rule plot_calibration_curve:
    """Draw the calibration at coverage {wildcards.coverage}"""
    input:
        result=lambda w: first_result(w.coverage, calibrated=True),
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
        calibration=lambda w: calibration_file(w.coverage),
    output:
        report(
            "results/coverage_{coverage}/plots/calibration_curve.png",
            caption="../report/calibration_curve.rst",
            category="Figures",
            subcategory="coverage {coverage}",
            labels={"figure": "calibration"},
        ),
    log:
        "logs/plots/coverage_{coverage}/calibration_curve.log",
    conda:
        "../../envs/stats.yaml"
    params:
        code=FIGURE_CODE,
    script:
        "../scripts/figures.py"


rule plot_comparison_heatmap:
    """Draw the differences between policies at coverage {wildcards.coverage}"""
    input:
        result=lambda w: first_result(w.coverage),
        influence=lambda w: first_result(w.coverage).replace(".json", ".influence.parquet"),
    output:
        report(
            "results/coverage_{coverage}/plots/comparison_heatmap.png",
            caption="../report/comparison_heatmap.rst",
            category="Figures",
            subcategory="coverage {coverage}",
            labels={"figure": "differences"},
        ),
    log:
        "logs/plots/coverage_{coverage}/comparison_heatmap.log",
    conda:
        "../../envs/stats.yaml"
    params:
        code=FIGURE_CODE,
    script:
        "../scripts/figures.py"


rule plot_judge_distributions:
    """Draw the judge's scores at coverage {wildcards.coverage}"""
    input:
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
        draws=lambda w: draws_at_hand(w.coverage),
    output:
        report(
            "results/coverage_{coverage}/plots/judge_distributions.png",
            caption="../report/judge_distributions.rst",
            category="Figures",
            subcategory="coverage {coverage}",
            labels={"figure": "judge scores"},
        ),
    log:
        "logs/plots/coverage_{coverage}/judge_distributions.log",
    conda:
        "../../envs/stats.yaml"
    params:
        judge=CONFIG.analysis.judge,
        code=FIGURE_CODE,
    script:
        "../scripts/figures.py"


rule plot_sweep:
    """Draw the estimates over all coverages"""
    input:
        results=estimates_at(CONFIG.coverages),
        truth=validation_at(CONFIG.coverages[-1]),
    output:
        report(
            "results/plots/sweep.png",
            caption="../report/sweep.rst",
            category="Figures",
            subcategory="all coverages",
            labels={"figure": "policy values by coverage"},
        ),
    log:
        "logs/plots/sweep.log",
    conda:
        "../../envs/stats.yaml"
    params:
        code=FIGURE_CODE,
    script:
        "../scripts/figures.py"
