# Grades: the judges read every response, the oracle the share that was asked for.
# results/responses/{policy}/{shard}.jsonl -> results/judge/{policy}/{shard}.jsonl          -> results/judge/{policy}.jsonl
#                                          -> results/judges/{judge}/{policy}/{shard}.jsonl -> results/judges/{judge}/{policy}.jsonl
#                                          -> results/oracle/{policy}/coverage_{coverage}/{shard}.jsonl -> …/coverage_{coverage}.jsonl
# A grader is a model of the job itself, one behind an API, an ensemble of other judges, or the reference oracle.
from arena_cje.grading import hosted as hosted_judge
from arena_cje.grading import local, reference, rubrics

# By the folder that their grades are in.
GRADERS = CONFIG.graders


def members(grader):
    """Judges whose mean a judge is; none where it is one itself."""
    return getattr(GRADERS[grader], "ensemble", ())


# Those that read a rubric: the file, and what is in it.
RUBRIC_FILES = {
    grader: resource_file(block.rubric, "judges")
    for grader, block in GRADERS.items()
    if block.provider != records.REFERENCE and not members(grader)
}
RUBRICS = {grader: said(rubrics.load_rubric, Path(path)) for grader, path in RUBRIC_FILES.items()}
for grader, rubric in RUBRICS.items():
    said(rubrics.check, rubric, GRADERS[grader], grader.replace("/", "."))
RUBRIC_PROMPTS = {
    grader: resource_file(rubric.system_prompt, "policies") if rubric.system_prompt else []
    for grader, rubric in RUBRICS.items()
}
if CONFIG.oracle.provider == records.REFERENCE:
    said(reference.check, SAMPLE)


def grading_version(grader):
    """Numbers that are raised when the same answers, or the same model, would give other grades."""
    if members(grader):
        return {name: grading_version(f"judges/{name}") for name in members(grader)}
    if grader not in RUBRICS:
        return reference.VERSION
    if GRADERS[grader].hosted:
        return hosted_judge.VERSION
    kind = RUBRICS[grader].kind
    versions = {
        "likelihood": local.VERSION,
        "choices": local.CHOICES_VERSION,
        "structured": local.REPLY_VERSION,
    }
    return [versions[kind], generator.VERSION if kind == "structured" else scorer.VERSION]


def grading(grader):
    """What determines grades, beside the responses, the rubric, its system prompt and the model.

    By kind, so that what concerns another kind alone makes no grade stale.
    """
    block, rubric = GRADERS[grader], RUBRICS.get(grader)
    found = {"provider": block.provider, "version": grading_version(grader)}
    if rubric is None:
        return found
    if rubric.kind != "likelihood" and hasattr(block, "uncertainty"):
        found["uncertainty"] = block.uncertainty
    if block.hosted:
        if rubric.kind == "likelihood":
            return found | {"asked": canonical(asked(block, scored=True)), "score": writer.VERSION}
        return found | {
            "asked": canonical(asked(block) | {"json_reply": CONFIG.endpoint(block).json_reply}),
            "temperature": block.temperature,
            "max_tokens": block.max_tokens,
        }
    if rubric.kind == "structured":
        found |= {"temperature": rubrics.temperature_of(rubric, block), "max_tokens": block.max_tokens}
    return found | {"n_ctx": CONFIG.models[block.model].n_ctx}


JUDGE_VERSION, ORACLE_VERSION = grading_version("judge"), grading_version("oracle")


def is_local(grader):
    """Does it run a model in the job itself?"""
    return grader in RUBRICS and not GRADERS[grader].hosted


def own_record(grader):
    return model_record(GRADERS[grader]) if is_local(grader) else []


def model_file(grader):
    return ancient(gguf(GRADERS[grader].model)) if is_local(grader) else []


def generated_by(grader, policy):
    """The record of the model that generated, where a local grader reads its tokens or may have to make its own."""
    return model_record(CONFIG.policies[policy]) if is_local(grader) else []


def already_scored(grader, w):
    """The shard's log probabilities where a judge would only compute them again: the base responses, in a context it shares."""
    rubric = RUBRICS.get(grader)
    if rubric is None or rubric.kind != "likelihood":
        return []
    for name, policy in CONFIG.contexts.items():
        shares = (policy.model, policy.system_prompt) == (GRADERS[grader].model, rubric.system_prompt)
        sampled = {"temperature": rubric.temperature, "top_p": 1.0} in CONFIG.samplings(name)
        if shares and not policy.hosted and w.policy == BASE and sampled:
            return f"results/logprobs/{name}/{w.shard}.parquet"
    return []


def environment(grader):
    """The conda environment of a grader's jobs."""
    kind = "llama" if is_local(grader) else "api" if GRADERS[grader].hosted else "stats"
    return f"../../envs/{kind}.yaml"


def n_threads(grader):
    return CONFIG.models[GRADERS[grader].model].n_threads if is_local(grader) else 1


def grading_memory(grader, files):
    return memory(files.gguf) if is_local(grader) else 1000


def ladder(policy):
    """Coverages at which a policy's responses are labelled, rising: each step buys only what the one below lacks."""
    if policy == BASE:
        steps = {*CONFIG.coverages, CONFIG.oracle.truth_coverage}
    else:
        steps = {CONFIG.oracle.truth_coverage, CONFIG.oracle.target_coverage}
    return sorted(steps - {None}, key=float)


def lower_step(w):
    """The same shard at the next lower coverage in use, so that no label is bought twice side by side."""
    below = [step for step in ladder(w.policy) if float(step) < float(w.coverage)]
    return f"results/oracle/{w.policy}/coverage_{below[-1]}/{w.shard}.jsonl" if below else []


if members("judge"):

    rule judge_ensemble:
        """Take the mean of several judges for {wildcards.policy}, shard {wildcards.shard}"""
        input:
            expand("results/judges/{judge}/{{policy}}/{{shard}}.jsonl", judge=members("judge")),
        output:
            "results/judge/{policy}/{shard}.jsonl",
        log:
            "logs/judge/{policy}/{shard}.log",
        conda:
            "../../envs/stats.yaml"
        params:
            members=canonical(members("judge")),
            uncertainty=CONFIG.judge.uncertainty,
            code=code_hash("arena_cje.grading.grades"),
        script:
            "../scripts/ensemble.py"

else:

    rule judge:
        """Judge the responses of {wildcards.policy}, shard {wildcards.shard}"""
        input:
            responses="results/responses/{policy}/{shard}.jsonl",
            scored=lambda w: already_scored("judge", w),
            rubric=RUBRIC_FILES["judge"],
            system_prompt=RUBRIC_PROMPTS["judge"],
            template=template_of(CONFIG.judge),
            model=own_record("judge"),
            gguf=model_file("judge"),
            generated_by=lambda w: generated_by("judge", w.policy),
        output:
            "results/judge/{policy}/{shard}.jsonl",
        log:
            "logs/judge/{policy}/{shard}.log",
            benchmark="logs/benchmarks/judge/{policy}/{shard}.tsv",
        conda:
            environment("judge")
        threads: n_threads("judge")
        resources:
            model_slots=int(is_local("judge")),
            api_jobs=int(CONFIG.judge.hosted),
            mem_mb=lambda w, input: grading_memory("judge", input),
        params:
            **grading("judge"),
        script:
            "../scripts/judge.py"


rule judges:
    """Judge the responses of {wildcards.policy} by {wildcards.judge}, shard {wildcards.shard}"""
    input:
        responses="results/responses/{policy}/{shard}.jsonl",
        scored=lambda w: already_scored(f"judges/{w.judge}", w),
        rubric=lambda w: RUBRIC_FILES[f"judges/{w.judge}"],
        system_prompt=lambda w: RUBRIC_PROMPTS[f"judges/{w.judge}"],
        template=lambda w: template_of(CONFIG.judges[w.judge]),
        model=lambda w: own_record(f"judges/{w.judge}"),
        gguf=lambda w: model_file(f"judges/{w.judge}"),
        generated_by=lambda w: generated_by(f"judges/{w.judge}", w.policy),
    output:
        "results/judges/{judge}/{policy}/{shard}.jsonl",
    log:
        "logs/judges/{judge}/{policy}/{shard}.log",
        benchmark="logs/benchmarks/judges/{judge}/{policy}/{shard}.tsv",
    wildcard_constraints:
        judge=any_of(name for name in CONFIG.judges if not members(f"judges/{name}")),
    conda:
        lambda w: environment(f"judges/{w.judge}")
    threads: lambda w: n_threads(f"judges/{w.judge}")
    resources:
        model_slots=lambda w: int(is_local(f"judges/{w.judge}")),
        api_jobs=lambda w: int(CONFIG.judges[w.judge].hosted),
        mem_mb=lambda w, input: grading_memory(f"judges/{w.judge}", input),
    params:
        grading=lambda w: canonical(grading(f"judges/{w.judge}")),
    script:
        "../scripts/judge.py"


rule judges_ensemble:
    """Take the mean of the judges of {wildcards.judge} for {wildcards.policy}, shard {wildcards.shard}"""
    input:
        lambda w: expand("results/judges/{judge}/{{policy}}/{{shard}}.jsonl", judge=members(f"judges/{w.judge}")),
    output:
        "results/judges/{judge}/{policy}/{shard}.jsonl",
    log:
        "logs/judges/{judge}/{policy}/{shard}.log",
    wildcard_constraints:
        judge=any_of(name for name in CONFIG.judges if members(f"judges/{name}")),
    conda:
        "../../envs/stats.yaml"
    params:
        members=lambda w: canonical(members(f"judges/{w.judge}")),
        uncertainty=lambda w: CONFIG.judges[w.judge].uncertainty,
        code=code_hash("arena_cje.grading.grades"),
    script:
        "../scripts/ensemble.py"


if "oracle" in RUBRICS:

    rule oracle:
        """Label a share {wildcards.coverage} of the responses of {wildcards.policy}, shard {wildcards.shard}"""
        input:
            prompts="results/prompts/{shard}.jsonl",
            responses="results/responses/{policy}/{shard}.jsonl",
            lower=lower_step,
            rubric=RUBRIC_FILES.get("oracle", []),
            system_prompt=RUBRIC_PROMPTS.get("oracle", []),
            template=template_of(CONFIG.oracle),
            model=own_record("oracle"),
            gguf=model_file("oracle"),
            generated_by=lambda w: generated_by("oracle", w.policy),
        output:
            "results/oracle/{policy}/coverage_{coverage}/{shard}.jsonl",
        log:
            "logs/oracle/{policy}/coverage_{coverage}/{shard}.log",
            benchmark="logs/benchmarks/oracle/{policy}/coverage_{coverage}/{shard}.tsv",
        conda:
            environment("oracle")
        threads: n_threads("oracle")
        resources:
            model_slots=int(is_local("oracle")),
            api_jobs=int(CONFIG.oracle.hosted),
            mem_mb=lambda w, input: grading_memory("oracle", input),
        params:
            **grading("oracle"),
            start=lambda w: int(w.shard) * CONFIG.shard_size,
            draws=lambda w: 1 if w.policy == BASE else CONFIG.draws_per_prompt,
        script:
            "../scripts/judge.py"

else:

    include: "reference.smk"
