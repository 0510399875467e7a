# The plan of a study like this one, from what this one knows: its largest coverage below one is the pilot.
# cje_dataset.jsonl, fresh_draws/ -> results/planning/plan.json; plan.png is an exhibit of it (report.smk)


rule plan:
    """Plan how many prompts and labels the next study needs"""
    input:
        dataset=f"results/coverage_{PILOT_COVERAGE}/cje_dataset.jsonl",
        summary=f"results/coverage_{PILOT_COVERAGE}/summary.json",
        draws=lambda w: existing_draws(PILOT_COVERAGE),
        calibration=lambda w: calibration_file(PILOT_COVERAGE),
    output:
        PLAN,
    log:
        "logs/planning/plan.log",
    conda:
        "../../envs/stats.yaml"
    params:
        options=canonical({"seed": CONFIG.seed, **CONFIG.analysis.model_dump()}),
        thresholds=canonical(CONFIG.verdict),
        planning=canonical(planning_settings()),
        code=code_hash("arena_cje.planning.sources", estimators.module_name("direct")),
    script:
        "../scripts/plan.py"
