# Policies behind APIs: their responses, and the log probabilities of the base's responses under the policies whose API scores text.
# results/prompts/{shard}.jsonl -> results/responses/{policy}/{shard}.jsonl -> results/logprobs/{context}/{shard}.parquet


rule generate_hosted:
    """Ask for responses of {wildcards.policy} to shard {wildcards.shard}"""
    input:
        prompts="results/prompts/{shard}.jsonl",
        system_prompt=lambda w: SYSTEM_PROMPTS[CONFIG.policies[w.policy].system_prompt],
        template=lambda w: template_of(CONFIG.policies[w.policy]),
    output:
        "results/responses/{policy}/{shard}.jsonl",
    log:
        "logs/generate/{policy}/{shard}.log",
        benchmark="logs/benchmarks/generate/{policy}/{shard}.tsv",
    wildcard_constraints:
        policy=any_of(name for name, policy in CONFIG.policies.items() if policy.hosted),
    conda:
        "../../envs/api.yaml"
    resources:
        api_jobs=1,
    params:
        generation=lambda w: canonical(stage_plan.generation_parameters(CONFIG, w.policy)),
    script:
        "../scripts/generate_hosted.py"


rule score_hosted:
    """Score the base responses of shard {wildcards.shard} in context {wildcards.context}"""
    input:
        responses=f"results/responses/{BASE}/{{shard}}.jsonl",
        system_prompt=lambda w: SYSTEM_PROMPTS[CONTEXTS[w.context].system_prompt],
        template=lambda w: template_of(CONTEXTS[w.context]),
    output:
        "results/logprobs/{context}/{shard}.parquet",
    log:
        "logs/score/{context}/{shard}.log",
        benchmark="logs/benchmarks/score/{context}/{shard}.tsv",
    wildcard_constraints:
        context=any_of(name for name, policy in CONTEXTS.items() if policy.hosted),
    conda:
        "../../envs/api.yaml"
    resources:
        api_jobs=1,
    params:
        scoring=lambda w: canonical(stage_plan.scoring_parameters(CONFIG, w.context) | redo.parameter(w.context)),
    script:
        "../scripts/score_hosted.py"
