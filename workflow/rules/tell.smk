# Targets that print instead of making files: the cost of the calls to APIs, and which models answer. Each always runs.
#   snakemake cost           estimate and what was spent, by stage and policy, in results/cost.json too; needs no key
#   snakemake check_models   each model answers a request of one token, or says why not


rule cost:
    """Estimate what the calls to APIs cost, beside what was spent"""
    log:
        "logs/cost.log",
    localrule: True
    conda:
        "../../envs/api.yaml"
    params:
        pool=lambda w: text_sources()["pool"],
        resources=str(RESOURCES),
    script:
        "../scripts/cost.py"


rule check_models:
    """Ask each model for one token"""
    log:
        "logs/check_models.log",
    localrule: True
    conda:
        "../../envs/api.yaml"
    params:
        pool=lambda w: text_sources()["pool"],
        resources=str(RESOURCES),
    script:
        "../scripts/check_models.py"
