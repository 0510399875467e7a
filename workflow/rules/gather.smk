# One file out of the shards of a table of rows. results/{table}/{shard}.jsonl -> results/{table}.jsonl


rule gather:
    """Gather the shards of {wildcards.table}"""
    input:
        expand("results/{{table}}/{shard}.jsonl", shard=SHARDS),
    output:
        "results/{table}.jsonl",
    log:
        "logs/gather/{table}.log",
    wildcard_constraints:
        table="prompts|(responses|judge|judges/[^/]+)/[^/]+|oracle/[^/]+/coverage_[^/]+",
    localrule: True
    conda:
        "../../envs/stats.yaml"
    shell:
        "cat {input:q} > {output:q} 2> {log:q}"
