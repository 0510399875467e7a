# One file out of the shards of a table of rows. results/{table}/{shard}.jsonl -> results/{table}.jsonl


rule gather:
    """Gather the shards of {wildcards.table}"""
    input:
        expand("results/{{table}}/{shard}.jsonl", shard=SHARDS),
    output:
        "results/{table}.jsonl",
    wildcard_constraints:
        table="prompts|(responses|judge)/[^/]+|oracle/[^/]+/coverage_[^/]+",
    log:
        "logs/gather/{table}.log",
    conda:
        "../../envs/stats.yaml"
    localrule: True
    shell:
        "cat {input:q} > {output:q} 2> {log:q}"
