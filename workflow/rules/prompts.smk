# Prompts in their seeded order, cut straight from the source: one file a shard, none in common. -> results/prompts/{shard}.jsonl
SOURCE = resource_file(CONFIG.prompts.source, "prompts")
SAMPLE = or_exit(prompts.sample, Path(SOURCE), n=CONFIG.n_prompts, seed=CONFIG.seed)
SHARDS = prompts.shards(CONFIG.n_prompts, CONFIG.shard_size)


rule sample_prompts:
    """Cut shard {wildcards.shard} of the prompts"""
    input:
        ancient(SOURCE),
    output:
        "results/prompts/{shard}.jsonl",
    log:
        "logs/prompts/{shard}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        seed=CONFIG.seed,
        size=CONFIG.shard_size,
        n=lambda w: min(CONFIG.n_prompts, (int(w.shard) + 1) * CONFIG.shard_size),
        rows=lambda w: prompts.fingerprint(prompts.cut(SAMPLE, w.shard, CONFIG.shard_size)),
    script:
        "../scripts/sample_prompts.py"
