# What is analysed at a coverage, in the CJE format, and what was dropped and why.
# responses, log probabilities, grades -> results/coverage_{coverage}/cje_dataset.jsonl, summary.json
if CONFIG.calibration_data:
    from arena_cje.data import user_data

    or_exit(user_data.check_user_file, Path(CONFIG.calibration_data), results=Path("results"))


rule assemble:
    """Assemble the data set at coverage {wildcards.coverage}"""
    input:
        responses=f"results/responses/{BASE}.jsonl",
        judge=f"results/judge/{BASE}.jsonl",
        oracle=f"results/oracle/{BASE}/coverage_{{coverage}}.jsonl",
        judges=expand(f"results/judges/{{judge}}/{BASE}.jsonl", judge=CONFIG.judges),
        logprobs=expand("results/logprobs/{policy}.parquet", policy=CONFIG.policies_with_logprobs),
        models=expand("results/models/{model}.json", model=CONFIG.local_models),
        people="results/labeling/agreement.json" if CONFIG.oracle.provider == values.HUMAN else [],
    output:
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
    log:
        "logs/assemble/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        made_from=lambda w: canonical(stage_plan.dataset_provenance(CONFIG, GRADERS, prompt_pool())),
        max_unscored=canonical(plan.limits(GRADERS)),
        thresholds=data_thresholds(),
        code=code_hash("arena_cje.stages.assemble", "arena_cje.data.write", "arena_cje.results.account"),
    script:
        "../scripts/assemble.py"
