# Fresh draws in the CJE format. responses, grades -> results/coverage_{coverage}/fresh_draws/{policy}.jsonl, .json


rule fresh_draws_of_one:
    """Assemble the fresh draws of {wildcards.policy}"""
    input:
        responses="results/responses/{policy}.jsonl",
        judge="results/judge/{policy}.jsonl",
        judges=expand("results/judges/{judge}/{{policy}}.jsonl", judge=CONFIG.judges),
        oracle=lambda w: target_labels([w.policy], w.coverage),
    output:
        draws="results/coverage_{coverage}/fresh_draws/{policy}.jsonl",
        summary="results/coverage_{coverage}/fresh_draws/{policy}.json",
    log:
        "logs/assemble/coverage_{coverage}/{policy}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        max_unscored=canonical(plan.limits(GRADERS)),
        code=code_hash("arena_cje.stages.assemble", "arena_cje.data.write"),
    script:
        "../scripts/fresh_draws.py"


rule fresh_draws:
    """Assemble the fresh draws of all target policies"""
    input:
        responses=expand("results/responses/{policy}.jsonl", policy=CONFIG.targets),
        judge=expand("results/judge/{policy}.jsonl", policy=CONFIG.targets),
        judges=expand("results/judges/{judge}/{policy}.jsonl", judge=CONFIG.judges, policy=CONFIG.targets),
        oracle=lambda w: target_labels(CONFIG.targets, w.coverage),
    output:
        draws=expand("results/coverage_{{coverage}}/fresh_draws/{policy}.jsonl", policy=CONFIG.targets),
        summary=expand("results/coverage_{{coverage}}/fresh_draws/{policy}.json", policy=CONFIG.targets),
    log:
        "logs/assemble/coverage_{coverage}/fresh_draws.log",
    conda:
        "../../envs/stats.yaml"
    params:
        max_unscored=canonical(plan.limits(GRADERS)),
        code=code_hash("arena_cje.stages.assemble", "arena_cje.data.write"),
    script:
        "../scripts/fresh_draws.py"


prefer(
    "fresh_draws",
    "fresh_draws_of_one",
    when=not asks_for_one(
        [file for path in draw_files("{coverage}") for file in (path, path.replace(".jsonl", ".json"))]
    ),
)
