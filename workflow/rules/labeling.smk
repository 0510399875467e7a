# People as the oracle: tasks go out, votes come back.
# results/responses/{policy}/{shard}.jsonl -> results/labeling/{batch}/tasks.csv, label.html, … and key.csv
# key.csv and files of votes (`oracle.votes`) -> results/labeling/labels.jsonl -> results/oracle/{policy}/coverage_{coverage}.jsonl
#                                                                   for validation alone: results/oracle/{policy}/validation.jsonl
# The secret of the ids, results/labeling/secret.key, is made once and is no output of a rule: a rerun would make all tasks unknown.
import glob

HUMAN_POLICIES = list(CONFIG.human_shares)
LABELING_INSTRUCTIONS = resource_file(CONFIG.labeling.instructions, "labeling")
LABEL_PAGE = [WORKFLOW / "arena_cje" / "labeling" / f"label.{kind}" for kind in ("html.j2", "css", "js")]


def shards_of(stage, policies):
    """The shards of a stage of some policies."""
    return expand(f"results/{stage}/{{policy}}/{{shard}}.jsonl", policy=policies, shard=SHARDS)


def keys_of(batches):
    return expand("results/labeling/{batch}/key.csv", batch=batches)


def vote_files(_):
    """The files that `oracle.votes` names."""
    files = []
    for name in CONFIG.oracle.votes:
        matches = sorted(glob.glob(name))
        if not matches and not glob.has_magic(name):
            sys.exit(f"ERROR config: `oracle.votes` names {name!r}, and there is no such file; correct the path")
        files += matches
    if not files:
        sys.exit(
            f"ERROR there are no votes of people yet: let them label results/labeling/{BATCHES[0]}/label.html (or upload tasks.csv "
            "beside it), and name the files of their votes under `oracle.votes`"
        )
    return list(map(input_path, dict.fromkeys(files)))


def model_grades():
    """Files of the grades of each model that labels or judges, by stage and policy."""
    graded = {
        stage: {policy: shards_of(stage, [policy]) for policy in HUMAN_POLICIES}
        for stage in GRADERS
        if stage != "oracle"
    }
    if CONFIG.oracle.provider != values.HUMAN:
        largest = {policy: CONFIG.label_coverages(policy)[-1:] for policy in HUMAN_POLICIES}
        graded["oracle"] = {
            policy: [f"results/oracle/{policy}/coverage_{coverage}.jsonl"]
            for policy, coverages in largest.items()
            for coverage in coverages
        }
    return graded


rule labeling_batch:
    """Make the tasks of labelling batch {wildcards.batch}"""
    input:
        prompts=expand("results/prompts/{shard}.jsonl", shard=SHARDS),
        responses=shards_of("responses", HUMAN_POLICIES),
        earlier=lambda w: keys_of(BATCHES[: BATCHES.index(w.batch)]),
        instructions=LABELING_INSTRUCTIONS,
    output:
        tasks="results/labeling/{batch}/tasks.csv",
        label_studio="results/labeling/{batch}/label_studio.json",
        mturk="results/labeling/{batch}/mturk.csv",
        page="results/labeling/{batch}/label.html",
        key="results/labeling/{batch}/key.csv",
        summary="results/labeling/{batch}/batch.json",
    log:
        "logs/labeling/{batch}.log",
    wildcard_constraints:
        batch=any_of(BATCHES),
    conda:
        "../../envs/stats.yaml"
    params:
        limit=lambda w: canonical(CONFIG.labeling.batches[w.batch].model_dump()),
        terms=canonical(
            CONFIG.labeling.model_dump(
                include={"votes_per_item", "usd_per_vote", "duplicates", "scale", "step", "byte_order_mark"}
            )
        ),
        shares=canonical(CONFIG.human_shares),
        validation=canonical(CONFIG.validation_span),
        seed=CONFIG.seed,
        page=list(map(sha256, LABEL_PAGE)),
        code=code_hash("arena_cje.labeling.page", "arena_cje.labeling.tasks", "arena_cje.stages.people"),
    script:
        "../scripts/labeling_batch.py"


rule labels:
    """Make labels of the votes of people"""
    input:
        key=keys_of(BATCHES),
        votes=vote_files,
        prompts=expand("results/prompts/{shard}.jsonl", shard=SHARDS) if CONFIG.validation_span else [],
    output:
        labels="results/labeling/labels.jsonl",
        report="results/labeling/agreement.json",
    log:
        "logs/labeling/labels.log",
    conda:
        "../../envs/stats.yaml"
    params:
        reading=canonical(
            CONFIG.labeling.model_dump(include={"votes_per_item", "scale", "step", "aggregation", "columns"})
        ),
        validation=canonical(CONFIG.validation_span),
        code=code_hash("arena_cje.labeling.labels", "arena_cje.labeling.votes", "arena_cje.stages.people"),
    script:
        "../scripts/labels.py"


rule judge_agreement:
    """Hold the judge against people"""
    input:
        key=keys_of(BATCHES),
        labels="results/labeling/labels.jsonl",
        judge=shards_of("judge", HUMAN_POLICIES),
        responses=shards_of("responses", HUMAN_POLICIES),
    output:
        report="results/labeling/judge_agreement.json",
        apart="results/labeling/most_apart.csv",
    log:
        "logs/labeling/judge_agreement.log",
    conda:
        "../../envs/stats.yaml"
    params:
        scale=canonical(CONFIG.labeling.model_dump(include={"scale", "step"})),
        code=code_hash("arena_cje.labeling.agreement", "arena_cje.labeling.tasks", "arena_cje.stages.people"),
    script:
        "../scripts/judge_agreement.py"


rule oracles:
    """Hold every model that labels or judges against people"""
    input:
        key=keys_of(BATCHES),
        labels="results/labeling/labels.jsonl",
        grades=[path for of_model in model_grades().values() for paths in of_model.values() for path in paths],
        responses=shards_of("responses", HUMAN_POLICIES),
    output:
        report="results/labeling/oracles.json",
        apart="results/labeling/oracles.csv",
    log:
        "logs/labeling/oracles.log",
    conda:
        "../../envs/stats.yaml"
    params:
        grades=canonical(model_grades()),
        policies=canonical(HUMAN_POLICIES),
        alpha=CONFIG.analysis.alpha,
        code=code_hash("arena_cje.labeling.oracles", "arena_cje.labeling.tasks", "arena_cje.stages.people"),
    script:
        "../scripts/oracles.py"


if CONFIG.oracle.provider == values.HUMAN:

    rule oracle:
        """Give {wildcards.policy} the labels of people at coverage {wildcards.coverage}"""
        input:
            key=keys_of(BATCHES),
            labels="results/labeling/labels.jsonl",
            responses=lambda w: shards_of("responses", w.policy),
        output:
            "results/oracle/{policy}/coverage_{coverage}.jsonl",
        log:
            "logs/oracle/{policy}/coverage_{coverage}.log",
        conda:
            "../../envs/stats.yaml"
        params:
            code=code_hash("arena_cje.labeling.tasks", "arena_cje.stages.people"),
        script:
            "../scripts/oracle_human.py"


if CONFIG.validation_span:

    rule validation_labels:
        """Give {wildcards.policy} the labels of people that are for validation alone"""
        input:
            key=keys_of(BATCHES),
            labels="results/labeling/labels.jsonl",
            responses=lambda w: shards_of("responses", w.policy),
        output:
            "results/oracle/{policy}/validation.jsonl",
        log:
            "logs/oracle/{policy}/validation.log",
        conda:
            "../../envs/stats.yaml"
        params:
            span=canonical(CONFIG.validation_span),
            code=code_hash("arena_cje.labeling.tasks", "arena_cje.stages.people"),
        script:
            "../scripts/oracle_human.py"
