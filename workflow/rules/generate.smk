# Responses of every policy; those of policies behind APIs are in hosted.smk. results/prompts/{shard}.jsonl -> results/responses/{policy}/{shard}.jsonl -> {policy}.jsonl
from arena_cje.llama import generator
from arena_cje.hosted import writer


def generation(policy):
    """What determines the responses of a policy, beside its model file, its system prompt and the prompts."""
    block = CONFIG.policies[policy]
    return {
        **block.sampling,
        "max_tokens": block.max_tokens,
        "draws": 1 if policy == BASE else CONFIG.draws_per_prompt,
        **({"asked": asked(block)} if block.hosted else {"n_ctx": CONFIG.models[block.model].n_ctx}),
        "seed": CONFIG.seed,
        "version": writer.VERSION if block.hosted else generator.VERSION,
    }


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
        generation=lambda w: canonical(generation(w.policy)),
    script:
        "../scripts/generate.py"
