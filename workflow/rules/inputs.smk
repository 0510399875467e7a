# Functions that give rules their inputs, outputs and parameters; the library has the logic, this file defines paths only.
# At the end: which of two rules makes a file.
import json

from arena_cje.config import exhibits
from arena_cje.config.records.analysis import Looks
from arena_cje.data.names import file_name
from arena_cje.diagnostics import thresholds
from arena_cje.provenance import sha256

# Snakemake gives the targets to the workflow only after it has read the rules. Those of an outer workflow are not known.
ARGUMENTS = [] if IS_MODULE else sys.argv[1:]


# Grades


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


def label_design(w):
    """Where labels are bought, unless they are bought at random or on all responses."""
    return "results/oracle/design.jsonl" if CONFIG.oracle.is_by_score and float(w.coverage) < 1 else []


# Data


def data_thresholds():
    """Thresholds that the account of a data set uses, where they differ from their default."""
    return canonical({name: value for name, value in CONFIG.verdict.items() if name in thresholds.OF_DATA})


def draw_policies():
    """Policies that there are fresh draws of, as names of files."""
    return CONFIG.targets if CONFIG.logged_data is None else tuple(map(file_name, IMPORTED))


def draw_files(coverage):
    """Fresh draws of all targets at a coverage."""
    return expand("results/coverage_{coverage}/fresh_draws/{policy}.jsonl", coverage=coverage, policy=draw_policies())


def calibration_file(coverage):
    """Calibration data, where there are any; beside a user's own logged data with a share of their labels."""
    if CONFIG.logged_data is None:
        return CONFIG.calibration_data or []
    return f"results/coverage_{coverage}/calibration_data.jsonl" if CONFIG.calibration_data else []


def target_labels(policies, coverage):
    """Labels of targets' own draws that enter estimates; none unless `oracle.target_labels` asks for a share."""
    share = CONFIG.oracle.target_coverage(coverage)
    return expand("results/oracle/{policy}/coverage_{share}.jsonl", policy=policies, share=share) if share else []


def sharded_tables():
    """Patterns of the tables that are made in shards; the reference oracle and people label all shards at once."""
    grades = ["judge/[^/]+", "judges/[^/]+/[^/]+"]
    labels = [] if CONFIG.oracle.provider in (values.REFERENCE, values.HUMAN) else ["oracle/[^/]+/coverage_[^/]+"]
    return ["prompts", "responses/[^/]+", *grades, *labels]


def context_scores(policies):
    """Log probabilities of the base responses in the scoring contexts of some policies."""
    contexts = dict.fromkeys(CONFIG.policies[name].context for name in policies)
    return expand("results/logprobs/{context}/{shard}.parquet", context=contexts, shard=SHARDS)


def scored_as(policies):
    """Where the log probabilities of some policies are found: the context and the sampling of each."""
    return {name: {"context": CONFIG.policies[name].context, **CONFIG.policies[name].sampling} for name in policies}


# Estimates


def takes_draws(name):
    """Does an estimator use fresh draws, or may labels of the targets' own stand among them for the audit?"""
    audited = CONFIG.oracle.target_labels if CONFIG.logged_data is None else CONFIG.fresh_draws
    return bool(audited) or CONFIG.needs_draws(name)


def draws_for(name, coverage):
    """The fresh draws that an estimator reads."""
    return draw_files(coverage) if takes_draws(name) else []


def draw_summaries(name, coverage):
    """Who gave and graded these draws, where they are the workflow's own."""
    return [path.replace(".jsonl", ".json") for path in draws_for(name, coverage) if CONFIG.logged_data is None]


def estimation(name):
    """What determines a result beside its files: equal for all estimators that are run together."""
    alike = [other for other in estimators.SHIPPED if estimators.needs_draws(other) == CONFIG.needs_draws(name)]
    own = [digest(plugins.code(CONFIG.plugins))[:12]] if CONFIG.plugins else []
    return {
        "options": canonical({"seed": CONFIG.seed, **CONFIG.estimator_of(name)[1]}),
        "thresholds": canonical(CONFIG.verdict),
        "decision": canonical(CONFIG.decision.model_dump()),
        "cautions": canonical(scoring.cautions(CONFIG) if CONFIG.logged_data is None else {}),
        "code": "-".join([code_hash("arena_cje.results.analyze", *map(estimators.module_name, alike)), *own]),
    }


@functools.cache
def unit_prices():
    """What a further label and a further response cost, for the remedies that results name."""
    from arena_cje.money import unit_prices

    return canonical(or_exit(unit_prices.unit_prices, CONFIG, **text_sources()))


# Estimators that are run in one job, since they need the same files and options: by whether they use fresh draws.
RUN_TOGETHER = {
    kind: names
    for kind, uses in (("without_draws", False), ("with_draws", True))
    if len(names := [name for name in ESTIMATORS if name in estimators.NAMES and CONFIG.needs_draws(name) == uses]) > 1
}


def result_files(names, coverage="{coverage}", kind="json"):
    """Results of some estimators at a coverage."""
    return [f"results/coverage_{coverage}/{name}.{kind}" for name in names]


def first_result(coverage, calibrated=False):
    """The result of the first configured estimator; `calibrated`: of the first that calibrates its rewards, if there is one."""
    fits = [name for name in ESTIMATORS if CONFIG.estimator_of(name)[1]["rewards"] != "judge"]
    return f"results/coverage_{coverage}/{(fits if calibrated and fits else ESTIMATORS)[0]}.json"


def result_to_show(coverage):
    """The result of the recommended estimator, of the first one where there is no decision yet."""
    decision = Path(f"results/coverage_{coverage}/decision.json")
    if not decision.exists():
        return first_result(coverage)
    return str(decision.with_name(f"{files.read_json(decision)['recommended']['estimator']}.json"))


def results_to_show():
    """The estimates that the command line names; for the whole experiment the recommended estimator's at every coverage."""
    return targets.estimate_files(workflow.dag_settings.targets) or list(map(result_to_show, CONFIG.coverages))


# Planned looks


def look_plan():
    """The plan of the looks, as `looks.Plan` has it."""
    return {**CONFIG.looks.model_dump(), "coverages": CONFIG.look_coverages, "margin": CONFIG.decision.margin}


def looks_up_to(coverage):
    """Coverages of the looks up to one."""
    return [other for other in CONFIG.look_coverages if float(other) <= float(coverage)]


def dashboard_look(coverage):
    """The look at a coverage that the dashboard shows, where looks are configured; by `direct` where it runs."""
    name = "direct" if "direct" in ESTIMATORS else ESTIMATORS[0]
    has_look = CONFIG.looks != Looks() and coverage in CONFIG.look_coverages
    return f"results/coverage_auto/{name}/look_{coverage}.json" if has_look else []


def looked_at(name, coverage, kind="json"):
    """Results that the looks up to a coverage read."""
    return [f"results/coverage_{other}/{name}.{kind}" for other in looks_up_to(coverage)]


def last_look(w):
    """The first look after which no other is needed; each buys the labels of its own coverage and no more."""
    for coverage in CONFIG.look_coverages:
        path = checkpoints.look.get(estimator=w.estimator, coverage=coverage).output[0]
        if json.loads(Path(path).read_text())["stop"]:
            return path


# Plans


def planning_settings():
    """What the next study is to reach, and its prices as far as the configuration has them."""
    votes = CONFIG.labeling
    is_human = CONFIG.logged_data is None and CONFIG.oracle.provider == values.HUMAN
    price = votes.usd_per_vote * votes.votes_per_item if is_human and votes.usd_per_vote else None
    settings = CONFIG.planning.model_dump()
    return settings | {"price_label": settings["price_label"] or price}


# Exhibits


def existing_draws(coverage):
    """Fresh draws that an estimator uses, that have labels, or that are a user's own: none are made for figures alone."""
    others_use_them = CONFIG.logged_data is not None or CONFIG.oracle.target_labels
    return draw_files(coverage) if others_use_them or any(map(CONFIG.needs_draws, ESTIMATORS)) else []


def lower(coverage):
    """Configured coverages below one: their labels are bought with its own, so that looking at them costs seconds."""
    return [other for other in CONFIG.coverages if float(other) < float(coverage)]


def truth_labels():
    """Labels of all policies' responses that validation compares with."""
    name = "validation" if CONFIG.validation_span else f"coverage_{CONFIG.oracle.truth_coverage}"
    return expand("results/oracle/{policy}/{name}.jsonl", policy=CONFIG.policies, name=name)


# Inputs of the rules that make exhibits, by the names in `exhibits.READS`.
EXHIBIT_INPUTS = {
    "results": lambda w: estimates_at(w.coverage),
    "influence": lambda w: estimates_at(w.coverage, "influence.parquet"),
    "first": lambda w: first_result(w.coverage),
    "first_influence": lambda w: first_result(w.coverage).replace(".json", ".influence.parquet"),
    "fitted": lambda w: first_result(w.coverage, calibrated=True),
    "judge": lambda w: expand("results/judge/{policy}.jsonl", policy=CONFIG.policies),
    "oracle": lambda w: truth_labels(),
    "validation": lambda w: validation_at(w.coverage),
    "dataset": "results/coverage_{coverage}/cje_dataset.jsonl",
    "summary": "results/coverage_{coverage}/summary.json",
    "draws": lambda w: existing_draws(w.coverage),
    "calibration": lambda w: calibration_file(w.coverage),
    "look": lambda w: dashboard_look(w.coverage),
    "lower": lambda w: estimates_at(lower(w.coverage)),
    "logprobs": (
        f"results/logprobs/{BASE}.parquet"
        if CONFIG.logged_data is None and BASE in CONFIG.policies_with_logprobs
        else []
    ),
    "all_results": estimates_at(CONFIG.coverages),
    "all_validations": validation_at(CONFIG.coverages),
    "plan": PLAN,
    "last_validation": validation_at(CONFIG.coverages[-1]),
}
# Template, style and script of the dashboard: read as files, as the library that uses them is slow to import.
REPORT = WORKFLOW / "arena_cje" / "report"
PAGE = [REPORT / name for name in ("dashboard.html.j2", "tables.html.j2", "dashboard.css.j2", "dashboard.js")]
DATA_PAGE = [REPORT / name for name in ("data_report.html.j2", "tables.html.j2", "dashboard.css.j2")]
EXHIBIT_PARAMS = {
    "scores_of": CONFIG.analysis.judge,
    "non_propensity": scoring.non_propensity(CONFIG),
    "configuration": literal(
        canonical({key: value for key, value in reported_settings().items() if key != "coverages"})
    ),
    "page": list(map(sha256, PAGE)),
    "data_page": list(map(sha256, DATA_PAGE)),
    "thresholds": data_thresholds(),
}


def exhibit_inputs(*group):
    """Inputs of a rule that makes some exhibits, without outputs of the rule itself."""
    own = {"validation"} if len(group) > 1 else set()
    return {name: EXHIBIT_INPUTS[name] for name in exhibits.dependencies(group) if name in EXHIBIT_INPUTS.keys() - own}


def exhibit_params(*group):
    """Parameters of a rule that makes some exhibits."""
    code = code_hash("arena_cje.report.sources", *(exhibit.module for exhibit in group))
    return {"code": code} | {
        name: EXHIBIT_PARAMS[name] for name in exhibits.dependencies(group) if name in EXHIBIT_PARAMS
    }


def exhibit_output(exhibit):
    """The output of an exhibit, with the caption and labels that `snakemake --report` shows."""
    if not exhibit.label:
        return exhibit.path
    caption, labels = f"../report/{exhibit.caption}", dict(exhibit.label)
    return report(exhibit.path, caption, category=exhibit.category, subcategory=exhibit.subcategory, labels=labels)


EXHIBITS = [exhibit for exhibit in exhibits.EXHIBITS if exhibit.name != "validate" or validation_at("{coverage}")]
OF_A_COVERAGE = [exhibit for exhibit in EXHIBITS if "{coverage}" in exhibit.path]
OF_ALL = [exhibit for exhibit in EXHIBITS if "{coverage}" not in exhibit.path]


def configured_texts():
    """Files that the configuration names and results depend on: rubrics, system prompts and templates."""
    if CONFIG.logged_data is not None:
        return []
    policies = [*SYSTEM_PROMPTS.values(), *map(template_of, CONFIG.policies.values())]
    people = [LABELING_INSTRUCTIONS] if BATCHES else []
    return sorted({*plan.text_files(GRADERS), *filter(None, policies), *people})


def archived():
    """All that the configuration asks for, and what belongs to it."""
    summaries = expand("results/coverage_{coverage}/summary.json", coverage=CONFIG.coverages)
    return sorted({*all_results(), *estimates_at(CONFIG.coverages, "influence.parquet"), *summaries})


# The ablation. Its plan imports what estimates, so that only those wait for it who ask for it.


@functools.cache
def ablation_plan():
    """The grid; worked out for those who ask for it, as it imports what estimates."""
    from arena_cje.ablation.plan import plan

    return or_exit(plan, CONFIG)


def ablation_data(kind):
    """A function of wildcards: files of the data whose labels are the truth; none for a simulated world."""

    def paths(w):
        from arena_cje.ablation.plan import truth_coverage

        if CONFIG.ablation.source == "simulated":
            return []
        coverage = or_exit(truth_coverage, CONFIG)
        has_grades = CONFIG.logged_data is None
        return {
            "dataset": f"results/coverage_{coverage}/cje_dataset.jsonl",
            "summary": f"results/coverage_{coverage}/summary.json",
            "draws": draw_files(coverage) if CONFIG.has_draws else [],
            "judge": EXHIBIT_INPUTS["judge"](w) if has_grades else [],
            "oracle": truth_labels() if has_grades else [],
        }[kind]

    return paths


def ablation_params(w):
    """What determines the cells of a block beside its files."""
    from arena_cje.ablation.plan import settings_of

    planned = ablation_plan()
    return canonical(settings_of(CONFIG, planned, planned.block(f"n{w.n}/{w.first}")))


def ablation_code(w):
    """Hash of what estimates the cells."""
    names = sorted({setting.estimator for setting in ablation_plan().settings})
    return code_hash("arena_cje.ablation.recorded", "arena_cje.ablation.run", *map(estimators.module_name, names))


# Two rules can make some files: one makes a file alone, for a user who names it; the other makes it together with others in one
# job, since starting a job costs more than most of its work. Estimates have the same inputs and parameters by either rule, so
# neither makes stale what the other made. Other files are made alone only while some files of their group are missing.


def prefer(together, *alone, when):
    """Put the rule that makes files together before those that make them alone (`when`), or after them."""
    for name in alone:
        workflow.ruleorder(*((together, name) if when else (name, together)))


def asks_for_one(*groups):
    """Whether the command line names a file of one of these groups, while files of the group are missing."""
    return any(targets.asks_for_one(ARGUMENTS, group) for group in groups)


def estimates_alone():
    """Whether each estimate is a job of its own: also for a user's data, which may lack what one estimator needs."""
    groups = [result_files(names) for names in RUN_TOGETHER.values()]
    one_missing = targets.one_missing(groups, CONFIG.coverages)
    return CONFIG.logged_data is not None or one_missing or asks_for_one(*groups) or targets.asks_for_looks(ARGUMENTS)


def exhibits_alone(group):
    """Whether each exhibit is a job of its own: unless all are requested, or one job has made them all before."""
    exist = targets.complete(ARGUMENTS, [exhibit.path for exhibit in group], CONFIG.coverages)
    everything = (
        workflow.modifier.modify_rulename("all") in sys.argv if IS_MODULE else targets.whole_experiment(ARGUMENTS)
    )
    return not everything and not exist
