# Planned looks: labels are bought coverage after coverage, until enough is known.
# results/coverage_{coverage}/{estimator}.json -> results/coverage_auto/{estimator}/look_{coverage}.json, one after the other
#                                              -> results/coverage_auto/{estimator}.json, the last look that was needed


checkpoint look:
    """Look at the results of {wildcards.estimator} up to coverage {wildcards.coverage}"""
    input:
        results=lambda w: looked_at(w.estimator, w.coverage),
        influence=lambda w: looked_at(w.estimator, w.coverage, "influence.parquet"),
        draws=lambda w: [path for coverage in looks_up_to(w.coverage) for path in draws_for(w.estimator, coverage)],
    output:
        "results/coverage_auto/{estimator}/look_{coverage}.json",
    log:
        "logs/looks/{estimator}/{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        plan=canonical(look_plan()),
        # What labels have cost grows with every look, and makes none stale.
        code=code_hash("arena_cje.results.looks"),
    script:
        "../scripts/look.py"


rule planned_looks:
    """Look at growing labels by {wildcards.estimator} until enough is known"""
    input:
        last_look,
    output:
        "results/coverage_auto/{estimator}.json",
    log:
        "logs/looks/{estimator}.log",
    localrule: True
    conda:
        "../../envs/stats.yaml"
    shell:
        "cp {input:q} {output:q} 2> {log:q}"
