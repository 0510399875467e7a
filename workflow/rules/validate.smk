# Estimates beside the truth: what the oracle says of every response, where the config lets it label them for validation.
# {estimator}.json, results/judge/, results/oracle/ -> results/coverage_{coverage}/validation.csv


rule validate:
    """Hold the estimates at coverage {wildcards.coverage} against the truth"""
    input:
        results=lambda w: estimates_at(w.coverage),
        judge=expand("results/judge/{policy}.jsonl", policy=CONFIG.policies),
        oracle=expand(
            "results/oracle/{policy}/coverage_{truth}.jsonl",
            policy=CONFIG.policies,
            truth=CONFIG.oracle.truth_coverage,
        ),
    output:
        report(
            "results/coverage_{coverage}/validation.csv",
            caption="../report/validation.rst",
            category="Tables",
            subcategory="coverage {coverage}",
            labels={"table": "beside the truth"},
        ),
    log:
        "logs/validate/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        code=code_hash("arena_cje.results.validation"),
    script:
        "../scripts/validate.py"
