# What is analysed at a coverage, in the CJE format, and what was dropped and why.
# responses, log probabilities, grades -> results/coverage_{coverage}/cje_dataset.jsonl, summary.json, fresh_draws/{policy}.jsonl
if CONFIG.calibration_data:
    from arena_cje import brought

    said(brought.check_brought, Path(CONFIG.calibration_data), results=Path("results"))

MODELS = sorted({policy.model for policy in CONFIG.policies.values()} | {CONFIG.judge.model})


def made_from():
    """Everything that determines the data set and is not in its files."""
    return {
        "seed": CONFIG.seed,
        "n_prompts": CONFIG.n_prompts,
        "base_policy": BASE,
        "policies": {name: generation(name) | {"context": block.context} for name, block in CONFIG.policies.items()},
        "judge": CONFIG.judge.model_dump(),
        "oracle": {"provider": CONFIG.oracle.provider, "target_labels": CONFIG.oracle.target_labels or 0.0},
        "versions": {"score": scorer.VERSION, "judge": JUDGE_VERSION, "oracle": reference.VERSION},
    }


def target_labels(w):
    """Labels of a target's own draws that enter estimates; none unless `oracle.target_labels` asks for a share."""
    share = CONFIG.oracle.target_coverage
    return f"results/oracle/{w.policy}/coverage_{share}.jsonl" if share else []


rule assemble:
    """Assemble the data set at coverage {wildcards.coverage}"""
    input:
        responses=f"results/responses/{BASE}.jsonl",
        judge=f"results/judge/{BASE}.jsonl",
        oracle=f"results/oracle/{BASE}/coverage_{{coverage}}.jsonl",
        logprobs=expand("results/logprobs/{policy}.parquet", policy=CONFIG.policies),
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
        code=code_hash("arena_cje.assemble"),
    script:
        "../scripts/assemble.py"


rule fresh_draws:
    """Assemble the fresh draws of {wildcards.policy}"""
    input:
        responses="results/responses/{policy}.jsonl",
        judge="results/judge/{policy}.jsonl",
        oracle=target_labels,
    output:
        "results/coverage_{coverage}/fresh_draws/{policy}.jsonl",
    log:
        "logs/assemble/coverage_{coverage}/{policy}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        code=code_hash("arena_cje.assemble"),
    script:
        "../scripts/fresh_draws.py"


def draw_files(coverage):
    """Fresh draws of all targets at a coverage."""
    return expand("results/coverage_{coverage}/fresh_draws/{policy}.jsonl", coverage=coverage, policy=CONFIG.targets)


def calibration_file(coverage):
    """Calibration data, where there are any: as they are, since the workflow's own data have no masked label to give away."""
    return CONFIG.calibration_data or []
