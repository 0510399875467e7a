# Responses of every policy that a job generates itself; those of policies behind APIs are in hosted.smk.
# results/prompts/{shard}.jsonl -> results/responses/{policy}/{shard}.jsonl -> results/responses/{policy}.jsonl


rule generate:
    """Generate responses of {wildcards.policy} to shard {wildcards.shard}"""
    input:
        prompts="results/prompts/{shard}.jsonl",
        model=lambda w: f"results/models/{CONFIG.policies[w.policy].model}.json",
        gguf=lambda w: ancient(gguf(CONFIG.policies[w.policy].model)),
        system_prompt=lambda w: SYSTEM_PROMPTS[CONFIG.policies[w.policy].system_prompt],
    output:
        "results/responses/{policy}/{shard}.jsonl",
    log:
        "logs/generate/{policy}/{shard}.log",
        benchmark="logs/benchmarks/generate/{policy}/{shard}.tsv",
    wildcard_constraints:
        policy=any_of(name for name, policy in CONFIG.policies.items() if not policy.hosted),
    conda:
        "../../envs/llama.yaml"
    threads: lambda w: CONFIG.models[CONFIG.policies[w.policy].model].n_threads
    resources:
        model_slots=1,
        mem_mb=lambda w, input: memory(input.gguf),
    params:
        generation=lambda w: canonical(stage_plan.generation_parameters(CONFIG, w.policy)),
    script:
        "../scripts/generate.py"
