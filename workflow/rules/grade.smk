# Grades: the judge reads every response, the oracle the share that was asked for.
# results/responses/{policy}/{shard}.jsonl -> results/judge/{policy}/{shard}.jsonl -> results/judge/{policy}.jsonl
#                                          -> results/oracle/{policy}/coverage_{coverage}/{shard}.jsonl -> …/coverage_{coverage}.jsonl
from arena_cje import judging
from arena_cje.providers import llama_cpp, reference

said(reference.check, SAMPLE)
RUBRIC_FILE = resource_file(CONFIG.judge.rubric, "judges")
RUBRIC = said(judging.load_rubric, Path(RUBRIC_FILE))
said(judging.check_uncertainty, RUBRIC, CONFIG.judge.uncertainty, CONFIG.judge.rubric)
# By kind, so that what concerns the other kind alone makes no grade stale.
JUDGE_VERSION, JUDGE_PARAMS = {
    "likelihood": (llama_cpp.VERSION, {}),
    "choices": (llama_cpp.CHOICES_VERSION, {"uncertainty": CONFIG.judge.uncertainty}),
}[RUBRIC.kind]


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


def already_scored(w):
    """The shard's log probabilities where the judge would only compute them again: the base responses, in a context it shares."""
    if RUBRIC.kind != "likelihood":
        return []
    for name, policy in CONFIG.contexts.items():
        shares = (policy.model, policy.system_prompt) == (CONFIG.judge.model, RUBRIC.system_prompt)
        if shares and w.policy == BASE and {"temperature": RUBRIC.temperature, "top_p": 1.0} in CONFIG.samplings(name):
            return f"results/logprobs/{name}/{w.shard}.parquet"
    return []


rule judge:
    """Judge the responses of {wildcards.policy}, shard {wildcards.shard}"""
    input:
        responses="results/responses/{policy}/{shard}.jsonl",
        scored=already_scored,
        rubric=RUBRIC_FILE,
        system_prompt=resource_file(RUBRIC.system_prompt, "policies") if RUBRIC.system_prompt else [],
        model=f"results/models/{CONFIG.judge.model}.json",
        gguf=ancient(gguf(CONFIG.judge.model)),
        generated_by=lambda w: f"results/models/{CONFIG.policies[w.policy].model}.json",
    output:
        "results/judge/{policy}/{shard}.jsonl",
    log:
        "logs/judge/{policy}/{shard}.log",
        benchmark="logs/benchmarks/judge/{policy}/{shard}.tsv",
    conda:
        "../../envs/llama.yaml"
    threads: CONFIG.models[CONFIG.judge.model].n_threads
    resources:
        model_slots=1,
        mem_mb=lambda w, input: memory(input.gguf),
    params:
        **JUDGE_PARAMS,
        provider=CONFIG.judge.provider,
        n_ctx=CONFIG.models[CONFIG.judge.model].n_ctx,
        version=[JUDGE_VERSION, scorer.VERSION],
    script:
        "../scripts/judge.py"


rule oracle:
    """Label a share {wildcards.coverage} of the responses of {wildcards.policy}, shard {wildcards.shard}"""
    input:
        prompts="results/prompts/{shard}.jsonl",
        responses="results/responses/{policy}/{shard}.jsonl",
        lower=lower_step,
    output:
        "results/oracle/{policy}/coverage_{coverage}/{shard}.jsonl",
    log:
        "logs/oracle/{policy}/coverage_{coverage}/{shard}.log",
        benchmark="logs/benchmarks/oracle/{policy}/coverage_{coverage}/{shard}.tsv",
    conda:
        "../../envs/stats.yaml"
    params:
        provider=CONFIG.oracle.provider,
        start=lambda w: int(w.shard) * CONFIG.shard_size,
        draws=lambda w: 1 if w.policy == BASE else CONFIG.draws_per_prompt,
        version=reference.VERSION,
    script:
        "../scripts/oracle.py"
