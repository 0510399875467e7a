# The ablation: a grid of settings on data whose truth is known. `snakemake ablation` makes it, and nothing else needs it.
# simulated world, or results/coverage_{truth}/ with labels on all responses -> results/ablation/cells/n{n}/{first}.parquet
#                                                                            -> results/ablation/summary.csv, summary.md, plots/*.png


rule ablation_cells:
    """Estimate cells of the ablation with {wildcards.n} prompts from seed {wildcards.first}"""
    input:
        dataset=ablation_data("dataset"),
        summary=ablation_data("summary"),
        draws=ablation_data("draws"),
        judge=ablation_data("judge"),
        oracle=ablation_data("oracle"),
    output:
        "results/ablation/cells/n{n}/{first}.parquet",
    log:
        "logs/ablation/n{n}/{first}.log",
    wildcard_constraints:
        n=r"\d+",
        first=r"\d\d\d\d\d+",
    conda:
        "../../envs/stats.yaml"
    params:
        grid=ablation_params,
        code=ablation_code,
    script:
        "../scripts/ablation_cells.py"


rule ablation:
    """Summarise the ablation"""
    input:
        lambda w: [f"results/ablation/cells/{block.name}.parquet" for block in ablation_plan().blocks],
    output:
        **{name: f"results/ablation/plots/{name}.png" for name in targets.ABLATION_PLOTS},
        table="results/ablation/summary.csv",
        text="results/ablation/summary.md",
    log:
        "logs/ablation/summary.log",
    conda:
        "../../envs/stats.yaml"
    params:
        apart=CONFIG.ablation.apart,
        alpha=CONFIG.analysis.alpha,
        code=lambda w: code_hash("arena_cje.ablation.summary", "arena_cje.report.ablation_figures"),
    script:
        "../scripts/ablation.py"
