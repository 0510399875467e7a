# Labels of the reference oracle. They are free, so that one job labels all shards of a policy at a coverage.
# results/prompts/{shard}.jsonl, results/responses/{policy}/{shard}.jsonl -> results/oracle/{policy}/coverage_{coverage}.jsonl


rule oracle:
    """Label a share {wildcards.coverage} of the responses of {wildcards.policy}"""
    input:
        prompts=expand("results/prompts/{shard}.jsonl", shard=SHARDS),
        responses=expand("results/responses/{{policy}}/{shard}.jsonl", shard=SHARDS),
        design=label_design,
    output:
        "results/oracle/{policy}/coverage_{coverage}.jsonl",
    log:
        "logs/oracle/{policy}/coverage_{coverage}.log",
        benchmark="logs/benchmarks/oracle/{policy}/coverage_{coverage}.tsv",
    conda:
        "../../envs/stats.yaml"
    params:
        version=reference.VERSION,
        draws=lambda w: CONFIG.draws(w.policy),
    script:
        "../scripts/oracle.py"
