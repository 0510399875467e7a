# Teacher-forced log probabilities of the base responses: one pass a scoring context (model, system prompt) for all its policies.
# results/responses/{base}/{shard}.jsonl -> results/logprobs/{context}/{shard}.parquet


rule score:
    """Score the base responses of shard {wildcards.shard} in context {wildcards.context}"""
    input:
        responses=f"results/responses/{BASE}/{{shard}}.jsonl",
        model=lambda w: f"results/models/{CONTEXTS[w.context].model}.json",
        gguf=lambda w: ancient(gguf(CONTEXTS[w.context].model)),
        generated_by=model_record(CONFIG.policies[BASE]),
        system_prompt=lambda w: SYSTEM_PROMPTS[CONTEXTS[w.context].system_prompt],
    output:
        "results/logprobs/{context}/{shard}.parquet",
    log:
        "logs/score/{context}/{shard}.log",
        benchmark="logs/benchmarks/score/{context}/{shard}.tsv",
    wildcard_constraints:
        context=any_of(name for name, policy in CONTEXTS.items() if not policy.hosted),
    conda:
        "../../envs/llama.yaml"
    threads: lambda w: CONFIG.models[CONTEXTS[w.context].model].n_threads
    resources:
        model_slots=1,
        mem_mb=lambda w, input: memory(input.gguf),
    params:
        scoring=lambda w: canonical(stage_plan.scoring_parameters(CONFIG, w.context) | redo.parameter(w.context)),
    script:
        "../scripts/score.py"
