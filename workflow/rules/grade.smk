# Grades: the judges read every response, the oracle reads the requested share.
# results/responses/{policy}/{shard}.jsonl -> results/judge/{policy}/{shard}.jsonl          -> results/judge/{policy}.jsonl
#                                          -> results/judges/{judge}/{policy}/{shard}.jsonl -> results/judges/{judge}/{policy}.jsonl
#                                          -> results/oracle/{policy}/coverage_{coverage}/{shard}.jsonl -> …/coverage_{coverage}.jsonl
# Where labels are bought by score, results/judge/{policy}.jsonl of all policies -> results/oracle/design.jsonl, which the oracle reads.
# A grader is a model of the job itself, one behind an API, an ensemble of other judges, the reference oracle, or people (grading/plan.py).
from arena_cje.grading import plan, reference

GRADERS = or_exit(plan.graders, CONFIG, resource_file)  # by the folder that their grades are in


rule judge:
    """Judge the responses of {wildcards.policy} by {wildcards.grader}, shard {wildcards.shard}"""
    input:
        responses="results/responses/{policy}/{shard}.jsonl",
        scored=scored_responses,
        rubric=grading_inputs("rubric"),
        system_prompt=grading_inputs("system_prompt"),
        template=grading_inputs("template"),
        model=grader_record,
        gguf=grader_gguf,
        generated_by=generator_record,
    output:
        "results/{grader}/{policy}/{shard}.jsonl",
    log:
        "logs/{grader}/{policy}/{shard}.log",
        benchmark="logs/benchmarks/{grader}/{policy}/{shard}.tsv",
    wildcard_constraints:
        grader=any_of(stage for stage, planned in GRADERS.items() if stage != "oracle" and not planned.members),
    conda:
        grader_environment
    threads: grader_threads
    resources:
        model_slots=lambda w: int(grader(w).is_local),
        api_jobs=lambda w: int(grader(w).is_hosted),
        mem_mb=grader_memory,
    params:
        grading=lambda w: canonical(grader(w).parameters),
    script:
        "../scripts/grade.py"


rule ensemble:
    """Take the mean of several judges as {wildcards.grader} for {wildcards.policy}, shard {wildcards.shard}"""
    input:
        member_grades,
    output:
        "results/{grader}/{policy}/{shard}.jsonl",
    log:
        "logs/{grader}/{policy}/{shard}.log",
    wildcard_constraints:
        grader=any_of(stage for stage, planned in GRADERS.items() if planned.members),
    conda:
        "../../envs/stats.yaml"
    params:
        grading=lambda w: canonical(grader(w).parameters),
        code=code_hash("arena_cje.grading.grades"),
    script:
        "../scripts/ensemble.py"


if CONFIG.oracle.is_by_score:

    rule label_design:
        """Plan where labels are bought, by the judge's scores of all policies"""
        input:
            expand("results/{judge}/{policy}.jsonl", judge=CONFIG.analysed_judge, policy=CONFIG.policies),
        output:
            "results/oracle/design.jsonl",
        log:
            "logs/oracle/design.log",
        conda:
            "../../envs/stats.yaml"
        params:
            base=BASE,
            code=code_hash("arena_cje.data.label_design"),
        script:
            "../scripts/label_design.py"


if GRADERS["oracle"].rubric:

    rule oracle:
        """Label a share {wildcards.coverage} of the responses of {wildcards.policy}, shard {wildcards.shard}"""
        input:
            prompts="results/prompts/{shard}.jsonl",
            responses="results/responses/{policy}/{shard}.jsonl",
            lower=lower_step,
            design=label_design,
            rubric=grading_inputs("rubric"),
            system_prompt=grading_inputs("system_prompt"),
            template=grading_inputs("template"),
            model=grader_record,
            gguf=grader_gguf,
            generated_by=generator_record,
        output:
            "results/oracle/{policy}/coverage_{coverage}/{shard}.jsonl",
        log:
            "logs/oracle/{policy}/coverage_{coverage}/{shard}.log",
            benchmark="logs/benchmarks/oracle/{policy}/coverage_{coverage}/{shard}.tsv",
        conda:
            grader_environment
        threads: grader_threads
        resources:
            model_slots=lambda w: int(grader(w).is_local),
            api_jobs=lambda w: int(grader(w).is_hosted),
            mem_mb=grader_memory,
        params:
            grading=lambda w: canonical(grader(w).parameters),
            start=lambda w: int(w.shard) * CONFIG.shard_size,
            draws=lambda w: CONFIG.draws(w.policy),
        script:
            "../scripts/grade.py"

elif CONFIG.oracle.provider != values.HUMAN:

    include: "reference.smk"


BATCHES = list(CONFIG.labeling.batches)

if BATCHES:

    include: "labeling.smk"
