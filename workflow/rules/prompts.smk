# Prompts in their seeded order. The source is read once, before jobs are planned, as a shard is stale by its own prompts alone;
# the shards are cut from the file that this makes. -> .arena-cje/prompts/prompts.jsonl -> results/prompts/{shard}.jsonl
from arena_cje.data import prompts as data_prompts

SHARDS = data_prompts.shards(CONFIG.n_prompts, CONFIG.shard_size)


rule sample_prompts:
    """Cut shard {wildcards.shard} of the prompts"""
    input:
        local(ancient(lambda w: str(prompt_pool().path))),  # also where the other files are in an object store
    output:
        "results/prompts/{shard}.jsonl",
    log:
        "logs/prompts/{shard}.log",
    localrule: True
    conda:
        "../../envs/stats.yaml"
    params:
        start=lambda w: int(w.shard) * CONFIG.shard_size,
        stop=lambda w: min(CONFIG.n_prompts, (int(w.shard) + 1) * CONFIG.shard_size),
        rows=lambda w: fingerprints()[w.shard],
    script:
        "../scripts/sample_prompts.py"
