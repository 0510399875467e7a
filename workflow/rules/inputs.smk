# Functions that give rules their inputs and resources. What they decide stands in the library; here are only the paths.


def template_of(block):
    """The template file of a policy as a rule input; none where it chats."""
    return resource_file(block.template, "templates") if block.template else []


def grader(w):
    """The judge that a job's wildcards name; the oracle where they name none."""
    return GRADERS[w.get("grader", "oracle")]


def grading_inputs(name):
    """A function of wildcards: a file that the grader reads, as a rule input; none where it has no such file."""
    return lambda w: getattr(grader(w), f"{name}_file") or []


def scored_responses(w):
    """The shard's log probabilities where a judge would only compute them again: the base responses, in a context it shares."""
    context = grader(w).scored_context(w.policy)
    return f"results/logprobs/{context}/{w.shard}.parquet" if context else []


def grader_record(w):
    """The record of the model that a local grader runs."""
    return model_record(grader(w).block) if grader(w).is_local else []


def grader_gguf(w):
    """The model file that a local grader runs."""
    return ancient(gguf(grader(w).block.model)) if grader(w).is_local else []


def generator_record(w):
    """The record of the model that generated, where a local grader reads its tokens or may have to make its own."""
    return model_record(CONFIG.policies[w.policy]) if grader(w).is_local else []


def grader_environment(w):
    """The conda environment of a grader's jobs."""
    return f"../../envs/{grader(w).environment}.yaml"


def grader_threads(w):
    return CONFIG.models[grader(w).block.model].n_threads if grader(w).is_local else 1


def grader_memory(w, input):
    """Megabytes that a grader's job asks for."""
    return memory(input.gguf) if grader(w).is_local else 1000


def member_grades(w):
    """The grades of an ensemble's members for one shard."""
    return [f"results/{member.stage}/{w.policy}/{w.shard}.jsonl" for member in grader(w).members]


def lower_step(w):
    """The same shard at the next lower coverage in use, so that no label is bought twice side by side."""
    lower = CONFIG.lower_coverage(w.policy, w.coverage)
    return f"results/oracle/{w.policy}/coverage_{lower}/{w.shard}.jsonl" if lower else []


def target_labels(w):
    """Labels of a target's own draws that enter estimates; none unless `oracle.target_labels` asks for a share."""
    share = CONFIG.oracle.target_coverage
    return f"results/oracle/{w.policy}/coverage_{share}.jsonl" if share else []


def draw_files(coverage):
    """Fresh draws of all targets at a coverage."""
    policies = CONFIG.targets if CONFIG.logged_data is None else IMPORTED
    return expand("results/coverage_{coverage}/fresh_draws/{policy}.jsonl", coverage=coverage, policy=policies)


def calibration_file(coverage):
    """Calibration data at a coverage, where there are any. The file of the workflow's own run is read as it is: the workflow
    never writes a label above the requested coverage, so there is nothing to mask."""
    if not CONFIG.calibration_data:
        return []
    if CONFIG.logged_data is None:
        return CONFIG.calibration_data
    return f"results/coverage_{coverage}/calibration_data.jsonl"
