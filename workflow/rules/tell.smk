# What is told rather than made: the cost of the calls to APIs, and which models answer. No output, so each always runs.
#   snakemake cost           estimate and what was spent, by stage and policy, in results/cost.json too; needs no key
#   snakemake check_models   each model answers a request of one token, or says why not
localrules:
    cost,
    check_models,


def said_of():
    """Who is asked what, for those who tell of it: the rest stands in the configuration."""
    return {"source": SOURCE if CONFIG.logged_data is None else None, "resources": str(RESOURCES)}


rule cost:
    """Estimate what the calls to APIs cost, beside what was spent"""
    log:
        "logs/cost.log",
    conda:
        "../../envs/api.yaml"
    params:
        **said_of(),
    script:
        "../scripts/cost.py"


rule check_models:
    """Ask each model for one token"""
    log:
        "logs/check_models.log",
    conda:
        "../../envs/api.yaml"
    params:
        **said_of(),
    script:
        "../scripts/check_models.py"


def tell_spending():
    """One line on what the calls to APIs have cost, where there were any."""
    from arena_cje.calls.ledger import LEDGER
    from arena_cje.money import account

    if LEDGER.exists() and not {*targets.TELLING} & {*(workflow.dag_settings.targets or ())}:
        print(f"\n{account.account(CONFIG, **said_of()).last_line()}")


def asked_by(job):
    """The block whose API a job asks, and the folder of the replies that there may be already."""
    w, rule = job.wildcards, job.rule.name
    if rule == "generate_hosted":
        return CONFIG.policies[w.policy], f"generate/{w.policy}"
    if rule == "score_hosted":
        return CONFIG.contexts[w.context], f"score/{w.context}"
    stage = f"judges/{w.judge}" if rule == "judges" else rule
    return GRADERS[stage], f"{stage}/{w.policy}"


def check_keys():
    """End before the first job where a later one would have no key: what comes before it may be dear.

    Where there are replies already, they may be all that is needed, and a job that needs more says so itself.
    """
    asking = [asked_by(job) for job in workflow.dag.needrun_jobs() if job.resources.get("api_jobs")]
    new = [block for block, folder in asking if not Path("results/journal/calls", folder).exists()]
    if workflow.local_exec:  # jobs elsewhere have an environment of their own
        said(endpoints.check_keys, [CONFIG.endpoint(block) for block in new])


onstart:
    check_keys()


onsuccess:
    from arena_cje.__main__ import show

    if not {*targets.TELLING} & {*(workflow.dag_settings.targets or ())}:
        show(path for path in results_to_show() if Path(path).exists())
    tell_spending()


onerror:
    tell_spending()
