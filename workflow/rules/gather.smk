# One file out of the shards of a table.
# results/{table}/{shard}.jsonl -> results/{table}.jsonl          results/logprobs/{context}/{shard}.parquet -> {policy}.parquet


rule gather:
    """Gather the shards of {wildcards.table}"""
    input:
        rows=expand("results/{{table}}/{shard}.jsonl", shard=SHARDS),
    output:
        rows="results/{table}.jsonl",
    log:
        "logs/gather/{table}.log",
    wildcard_constraints:
        table="|".join(sharded_tables()),
    localrule: True
    conda:
        "../../envs/stats.yaml"
    script:
        "../scripts/gather.py"


rule gather_responses_and_grades:
    """Gather the responses of {wildcards.policy} and what the judge says of them"""
    input:
        responses=expand("results/responses/{{policy}}/{shard}.jsonl", shard=SHARDS),
        judge=expand("results/judge/{{policy}}/{shard}.jsonl", shard=SHARDS),
    output:
        responses="results/responses/{policy}.jsonl",
        judge="results/judge/{policy}.jsonl",
    log:
        "logs/gather/{policy}.log",
    localrule: True
    conda:
        "../../envs/stats.yaml"
    script:
        "../scripts/gather.py"


prefer(
    "gather_responses_and_grades",
    "gather",
    when=not asks_for_one(
        *([f"results/responses/{name}.jsonl", f"results/judge/{name}.jsonl"] for name in CONFIG.policies)
    ),
)


if CONFIG.policies_with_logprobs:

    rule gather_logprobs_of_one:
        """Gather the log probabilities under {wildcards.policy}"""
        input:
            lambda w: context_scores([w.policy]),
        output:
            "results/logprobs/{policy}.parquet",
        log:
            "logs/score/{policy}.log",
        conda:
            "../../envs/stats.yaml"
        params:
            scored_as=lambda w: canonical(scored_as([w.policy])),
            code=code_hash("arena_cje.stages.assemble"),
        script:
            "../scripts/gather_logprobs.py"

    rule gather_logprobs:
        """Gather the log probabilities under all policies"""
        input:
            context_scores(CONFIG.policies_with_logprobs),
        output:
            expand("results/logprobs/{policy}.parquet", policy=CONFIG.policies_with_logprobs),
        log:
            "logs/score/logprobs.log",
        conda:
            "../../envs/stats.yaml"
        params:
            scored_as=canonical(scored_as(CONFIG.policies_with_logprobs)),
            code=code_hash("arena_cje.stages.assemble"),
        script:
            "../scripts/gather_logprobs.py"

    prefer(
        "gather_logprobs",
        "gather_logprobs_of_one",
        when=not asks_for_one(expand("results/logprobs/{policy}.parquet", policy=CONFIG.policies_with_logprobs)),
    )
