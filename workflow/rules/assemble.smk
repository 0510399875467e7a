# What is analysed at a coverage, in the CJE format, and what was dropped and why.
# responses, log probabilities, grades -> results/coverage_{coverage}/cje_dataset.jsonl, summary.json
if CONFIG.calibration_data:
    from arena_cje.data import user_data

    said(user_data.check_brought, Path(CONFIG.calibration_data), results=Path("results"))

# Models that run here, whoever asks them; what is behind an API has a version instead, which its answers tell.
MODELS = sorted(
    {block.model for block in CONFIG.model_blocks.values() if not block.hosted and block.provider != records.REFERENCE}
)
# How many unusable answers a stage may have: where answers are read, and nobody else has counted them.
MAX_UNSCORED = {
    stage: block.max_unscored
    for stage, block in CONFIG.graders.items()
    if block.provider != records.REFERENCE and not getattr(block, "ensemble", ())
}


def made_from():
    """Everything that determines the data set and is not in its files."""
    score_version = {
        name: writer.VERSION if block.hosted else scorer.VERSION for name, block in CONFIG.contexts.items()
    }
    return {
        "seed": CONFIG.seed,
        "n_prompts": CONFIG.n_prompts,
        "base_policy": BASE,
        "policies": {
            name: generation(name)
            | {"context": block.context}
            | ({"template": block.template} if block.template else {})
            for name, block in CONFIG.policies.items()
        },
        "judge": plan.grader(CONFIG.judge, CONFIG),
        "judges": {name: plan.grader(block, CONFIG) for name, block in CONFIG.judges.items()},
        "oracle": plan.grader(CONFIG.oracle, CONFIG)
        | {"target_labels": CONFIG.oracle.target_labels or 0.0},
        "versions": {"score": score_version, "judge": JUDGE_VERSION, "oracle": ORACLE_VERSION},
    }


rule assemble:
    """Assemble the data set at coverage {wildcards.coverage}"""
    input:
        responses=f"results/responses/{BASE}.jsonl",
        judge=f"results/judge/{BASE}.jsonl",
        oracle=f"results/oracle/{BASE}/coverage_{{coverage}}.jsonl",
        judges=expand(f"results/judges/{{judge}}/{BASE}.jsonl", judge=CONFIG.judges),
        logprobs=expand("results/logprobs/{policy}.parquet", policy=CONFIG.scored),
        models=expand("results/models/{model}.json", model=MODELS),
    output:
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
    log:
        "logs/assemble/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        made_from=canonical(made_from()),
        max_unscored=canonical(MAX_UNSCORED),
        code=code_hash("arena_cje.stages.assemble"),
    script:
        "../scripts/assemble.py"
