# Data brought along: the same data set files, from a logged data set in the CJE format instead of models.
# --config logged_data=FILE fresh_draws=DIR -> results/coverage_{coverage}/cje_dataset.jsonl, summary.json, fresh_draws/{policy}.jsonl
from arena_cje import dataset

said(dataset.check_brought, Path(CONFIG.logged_data), results=Path("results"))
IMPORTED = said(dataset.draw_paths, Path(CONFIG.fresh_draws)) if CONFIG.fresh_draws else {}
for path in IMPORTED.values():
    said(dataset.check_brought, path, results=Path("results"))


def draw_files(coverage):
    """Fresh draws of all targets at a coverage."""
    return expand("results/coverage_{coverage}/fresh_draws/{policy}.jsonl", coverage=coverage, policy=IMPORTED)


rule import_data:
    """Read the data brought along and keep labels on a share {wildcards.coverage}"""
    input:
        logged=CONFIG.logged_data,
        draws=[str(path) for path in IMPORTED.values()],
    output:
        *expand("results/coverage_{{coverage}}/fresh_draws/{policy}.jsonl", policy=IMPORTED),
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        summary="results/coverage_{coverage}/summary.json",
    log:
        "logs/import/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        fresh_draws=CONFIG.fresh_draws,
        seed=CONFIG.seed,
        target_labels=CONFIG.oracle.target_labels,
        base_policy=None if BASE == "base" else BASE,  # the default leaves it to the data to say
        code=code_hash("arena_cje.dataset"),
    script:
        "../scripts/import_data.py"
