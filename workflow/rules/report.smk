# What shows the results of a coverage, or of all: tables, figures, a page, exports (config/exhibits.py), and one archive.
# {estimator}.json, cje_dataset.jsonl, fresh_draws/ -> results/coverage_{coverage}/validation.csv, decision.json, plots/…, …
#                                                   -> results/export/coverage_{coverage}/…, results/plots/sweep.png, …
# all of these                                      -> results/archive.zip


report: "../report/workflow.rst"


for exhibit in EXHIBITS:

    rule:
        """Make one exhibit"""
        name:
            exhibit.name
        input:
            **exhibit_inputs(exhibit),
        output:
            **{exhibit.name: exhibit_output(exhibit)},
        log:
            f"logs/report/{exhibit.subcategory.replace(' ', '_')}/{exhibit.name}.log",
        conda:
            "../../envs/stats.yaml"
        params:
            **exhibit_params(exhibit),
        script:
            "../scripts/report.py"


rule exhibits:
    """Make the exhibits of coverage {wildcards.coverage}"""
    input:
        **exhibit_inputs(*OF_A_COVERAGE),
    output:
        **{exhibit.name: exhibit_output(exhibit) for exhibit in OF_A_COVERAGE},
    log:
        "logs/report/coverage_{coverage}.log",
    conda:
        "../../envs/stats.yaml"
    params:
        **exhibit_params(*OF_A_COVERAGE),
    script:
        "../scripts/report.py"


rule overview:
    """Make the exhibits of all coverages together"""
    input:
        **exhibit_inputs(*OF_ALL),
    output:
        **{exhibit.name: exhibit_output(exhibit) for exhibit in OF_ALL},
    log:
        "logs/report/overview.log",
    conda:
        "../../envs/stats.yaml"
    params:
        **exhibit_params(*OF_ALL),
    script:
        "../scripts/report.py"


prefer("exhibits", *(exhibit.name for exhibit in OF_A_COVERAGE), when=not exhibits_alone(OF_A_COVERAGE))
prefer("overview", *(exhibit.name for exhibit in OF_ALL), when=not exhibits_alone(OF_ALL))


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
        configuration=literal(json.dumps(reported_settings())),  # in declared order, that of policies in every table
        code=code_hash("arena_cje.report.archive"),
    script:
        "../scripts/archive.py"
