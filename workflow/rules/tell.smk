# Targets that print a table: the cost of the calls to APIs, which models answer, and the state of the last run. Their rules have
# no outputs, so that each always runs.
#   snakemake cost           estimate and what was spent, by stage and policy; also writes results/cost.json; needs no key
#   snakemake check_models   each model answers a request for a few tokens (at most 16), or the reason why not
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
    """Ask each model for a few tokens"""
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
