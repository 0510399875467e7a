# The ablation: a grid of settings on data whose truth is known. `snakemake ablation` makes it, and nothing else needs it.
# simulated world, or results/coverage_{truth}/ with labels on all responses -> results/ablation/cells/n{n}/{first}.parquet
#                                                                            -> results/ablation/summary.csv, summary.md, plots/*.png
from arena_cje.config.targets import ABLATION_PLOTS


@functools.cache
def ablation_plan():
    """The grid; worked out for those who ask for it, as it imports what estimates."""
    from arena_cje.ablation.plan import plan

    return or_exit(plan, CONFIG)


def ablation_data(kind):
    """A function of wildcards: files of the data whose labels are the truth; none for a simulated world."""

    def paths(w):
        from arena_cje.ablation.plan import truth_coverage

        if CONFIG.ablation.source == "simulated":
            return []
        coverage = or_exit(truth_coverage, CONFIG)
        has_grades = CONFIG.logged_data is None
        return {
            "dataset": f"results/coverage_{coverage}/cje_dataset.jsonl",
            "summary": f"results/coverage_{coverage}/summary.json",
            "draws": draw_files(coverage) if CONFIG.has_draws else [],
            "judge": EXHIBIT_INPUTS["judge"](w) if has_grades else [],
            "oracle": truth_labels() if has_grades else [],
        }[kind]

    return paths


def ablation_params(w):
    """What determines the cells of a block beside its files."""
    from arena_cje.ablation.plan import settings_of

    planned = ablation_plan()
    return canonical(settings_of(CONFIG, planned, planned.block(f"n{w.n}/{w.first}")))


def ablation_code(w):
    """Hash of what estimates the cells."""
    names = sorted({setting.estimator for setting in ablation_plan().settings})
    return code_hash("arena_cje.ablation.recorded", "arena_cje.ablation.run", *map(estimators.module_name, names))


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
        **{name: f"results/ablation/plots/{name}.png" for name in ABLATION_PLOTS},
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
