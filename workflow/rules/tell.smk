# Targets that print instead of making files: the cost of the calls to APIs, and which models answer. Each always runs.
#   snakemake cost           estimate and what was spent, by stage and policy, in results/cost.json too; needs no key
#   snakemake check_models   each model answers a request of one token, or says why not
#   snakemake status         what the last run in this folder has done and has left, also while it runs; needs no key


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


rule status:
    """Tell what is done, what is left and what failed"""
    log:
        "logs/status.log",
    localrule: True
    conda:
        "../../envs/stats.yaml"
    script:
        "../scripts/status.py"
