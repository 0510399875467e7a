# What results become for others: comparisons, other formats, one archive, and the tables of `snakemake --report`.
# results/coverage_{coverage}/{estimator}.json -> comparisons.json, .csv
#                                              -> results/export/coverage_{coverage}/…, results/export/results.csv, .parquet
# all of these                                 -> results/archive.zip
import json

import arena_cje


report: "../report/workflow.rst"


def configured_texts():
    """Files that the configuration names and results depend on: rubrics, system prompts and templates."""
    if CONFIG.logged_data is not None:
        return []
    policies = [*SYSTEM_PROMPTS.values(), *map(template_of, CONFIG.policies.values())]
    return sorted({*plan.text_files(GRADERS), *filter(None, policies)})


def archived():
    """All that the configuration asks for, and what belongs to it."""
    summaries = expand("results/coverage_{coverage}/summary.json", coverage=CONFIG.coverages)
    return sorted({*all_results(), *estimates_at(CONFIG.coverages, "influence.parquet"), *summaries})


rule comparisons:
    """Compare the policies in pairs at coverage {wildcards.coverage}"""
    input:
        results=lambda w: estimates_at(w.coverage),
        influence=lambda w: estimates_at(w.coverage, "influence.parquet"),
    output:
        json="results/coverage_{coverage}/comparisons.json",
        csv=report(
            "results/coverage_{coverage}/comparisons.csv",
            caption="../report/comparisons.rst",
            category="Tables",
            subcategory="coverage {coverage}",
            labels={"table": "differences of all pairs"},
        ),
    log:
        "logs/comparisons/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        code=code_hash("arena_cje.report.comparisons"),
    script:
        "../scripts/comparisons.py"


rule export_data:
    """Export the data at coverage {wildcards.coverage}"""
    input:
        result=lambda w: estimates_at(w.coverage)[0],
        dataset="results/coverage_{coverage}/cje_dataset.jsonl",
        calibration=lambda w: calibration_file(w.coverage),
        logprobs=f"results/logprobs/{BASE}.parquet" if CONFIG.logged_data is None and BASE in CONFIG.policies_with_logprobs else [],
    output:
        sampler="results/export/coverage_{coverage}/precomputed_sampler.jsonl",
        log="results/export/coverage_{coverage}/stochastic_log.jsonl",
    log:
        "logs/export/data/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        # Policies whose log probabilities are not of what they sample from.
        non_propensity=canonical(scoring.non_propensity(CONFIG)),
        code=code_hash("arena_cje.report.exports"),
    script:
        "../scripts/export_data.py"


rule export:
    """Export the results at coverage {wildcards.coverage}"""
    input:
        results=lambda w: estimates_at(w.coverage),
        influence=lambda w: estimates_at(w.coverage, "influence.parquet"),
        validation=lambda w: validation_at(w.coverage),
    output:
        results="results/export/coverage_{coverage}/token_level_cje_results.json",
        leaderboard=report(
            "results/export/coverage_{coverage}/leaderboard.csv",
            caption="../report/leaderboard.rst",
            category="Tables",
            subcategory="coverage {coverage}",
            labels={"table": "leaderboard"},
        ),
    log:
        "logs/export/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        code=code_hash("arena_cje.report.exports"),
    script:
        "../scripts/export.py"


rule export_table:
    """Put all results into one table"""
    input:
        results=estimates_at(CONFIG.coverages),
        validation=validation_at(CONFIG.coverages),
    output:
        csv=report(
            "results/export/results.csv",
            caption="../report/results.rst",
            category="Tables",
            subcategory="all coverages",
            labels={"table": "all results"},
        ),
        parquet="results/export/results.parquet",
    log:
        "logs/export/results.log",
    conda:
        "../../envs/stats.yaml"
    params:
        code=code_hash("arena_cje.report.exports"),
    script:
        "../scripts/export_table.py"


rule archive:
    """Put everything into one archive"""
    input:
        results=lambda w: archived(),
        texts=configured_texts(),
    output:
        "results/archive.zip",
    log:
        "logs/archive.log",
    conda:
        "../../envs/stats.yaml"
    params:
        configuration=json.dumps(settings_shown()),  # in declared order, that of policies in every table
        package_version=arena_cje.__version__,
        code=code_hash("arena_cje.report.archive"),
    script:
        "../scripts/archive.py"
