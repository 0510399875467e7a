# What all rules share: the checked configuration, where things lie, and what a job's parameters are.
import copy
import functools
import re
import sys
from pathlib import Path

import psutil
from snakemake.common.configfile import load_configfile
from snakemake.persistence import RECORD_FORMAT_VERSION
from snakemake.utils import update_config

from arena_cje import estimators, files
from arena_cje.calls import endpoint as endpoints
from arena_cje.config import parse as config_parse
from arena_cje.config import audits, plugins, scoring, targets
from arena_cje.config.records import inputs, values
from arena_cje.data.prompt_sets.pool import describe
from arena_cje.errors import UserError, file_errors, printable
from arena_cje.files import contains
from arena_cje.money import prices
from arena_cje.llama import fetch, gguf as gguf_files
from arena_cje.llama.library import has_gpu
from arena_cje.provenance import canonical, code_hash, digest
from arena_cje.report.settings import settings
from arena_cje.stages import plan as stage_plan, redo, seals
from arena_cje.terminal import ending
from arena_cje.terminal.screen import Terminal
from arena_cje.yaml_files import check_config_file


def or_exit(function, *args, **kwargs):
    """Call a library function; a user's mistake, or a file that cannot be used, ends Snakemake with one line and status 1."""
    try:
        with file_errors():
            return function(*args, **kwargs)
    except UserError as error:
        sys.exit(f"ERROR {error}")


def merge_configs(config, on_top):
    """A configuration with the keys of another on top."""
    result = copy.deepcopy(config)
    update_config(result, on_top)
    return result


# The command line is this workflow's own, unless another workflow uses it as a module.
IS_MODULE = not workflow.modifier.is_main_snakefile()
if IS_MODULE and (workflow.modifier.path_modifier.prefix or workflow.modifier.path_modifier.modifies_prefixes):
    sys.exit(
        "ERROR module: `prefix` and `replace_prefix` move the files that rules name, not the journals, logs and benchmarks that "
        "jobs find by their place; leave them out, and run each experiment in a working directory of its own"
    )

# The terminal is that of the outer workflow, too: what it shows of its jobs is not for a module to say.
TERMINAL = Terminal()
if workflow.is_main_process and not IS_MODULE:
    TERMINAL.take(workflow.output_settings, ending.lock_sentence, lambda: closing_lines())
    ending.explain_early_interrupts()

# What the user says: in config/config.yaml of a working directory that is not the workflow's folder, by --configfile and
# --config, or as the `config` of a module. The later go on top of the earlier, and all of them on top of the shipped file.
SHIPPED_CONFIG = ROOT / "config" / "config.yaml"
WORKING_CONFIG = Path("config/config.yaml")
# In a module that is given a `config`, Snakemake reads no `configfile:`.
LEAVES_OUT_SHIPPED = workflow.modifier.skip_configfile
# Snakemake reads these files too, but reports errors in them less precisely.
if not IS_MODULE:
    for file in (*workflow.configfiles, *filter(Path.exists, [WORKING_CONFIG])):
        or_exit(check_config_file, file)
own = copy.deepcopy(workflow.config_settings.overwrite_config if IS_MODULE and not LEAVES_OUT_SHIPPED else config)


configfile: str(SHIPPED_CONFIG)


if not IS_MODULE and WORKING_CONFIG.is_file() and not WORKING_CONFIG.samefile(SHIPPED_CONFIG):

    configfile: str(WORKING_CONFIG)

    own = merge_configs(load_configfile(WORKING_CONFIG), own)


if LEAVES_OUT_SHIPPED:
    config = merge_configs(load_configfile(SHIPPED_CONFIG), own)

CONFIG = or_exit(config_parse.parse, config, user_keys=own)
# Scripts read the defaults too; the dictionary that another workflow handed over stays as it is.
config = CONFIG.model_dump(mode="json")
BASE, CONTEXTS = CONFIG.base_policy, CONFIG.contexts
# Names of the targets that only print (they have no outputs), as the command line has them.
PRINTING_TARGETS = {workflow.modifier.modify_rulename(name) for name in targets.PRINTING_TARGETS}
ONLY_PRINTS = bool(PRINTING_TARGETS & {*sys.argv[1:]})
if workflow.is_main_process:
    for note in [*scoring.notes(CONFIG), *audits.notes(CONFIG)]:
        print(printable(f"NOTE {note}"), file=sys.stderr)
    if not ONLY_PRINTS:
        or_exit(prices.check_budget, CONFIG)


def own_reading():
    """How the columns of a user's own data are read."""
    from arena_cje.data.reading import Reading

    analysis = CONFIG.analysis
    return or_exit(
        Reading,
        analysis.covariates,
        scale=analysis.scale,
        judge=analysis.judge,
        judge_scale=analysis.judge_scale,
        label_scale=analysis.label_scale,
    )


# Jobs read the configuration again, and need not hear of the data.
CHECKS_DATA = workflow.is_main_process and not ONLY_PRINTS
# A file that is no logged data comes before all that follows from what it lacks. Files of another tool are read further down.
if CHECKS_DATA and isinstance(CONFIG.logged_data, str):
    from arena_cje.data import preview, user_data

    or_exit(user_data.check_user_file, CONFIG.logged_data, results=Path("results"))
    or_exit(preview.check_first_row, CONFIG.logged_data, own_reading())
# Snakemake tells the targets only after it has read this file; then a slip would be a missing rule instead of a sentence.
if not IS_MODULE:
    or_exit(targets.check, sys.argv[1:], CONFIG)
or_exit(targets.check_writable, Path("results"))
if workflow.is_main_process:
    restored = or_exit(seals.restore, RECORD_FORMAT_VERSION)
    if restored:
        print(
            f"NOTE .snakemake/ has no record of {restored} results that are there; what made them is read from results/seals/, "
            "and what the configuration now makes otherwise is made again",
            file=sys.stderr,
        )
    if not (ONLY_PRINTS or workflow.output_settings.dryrun):
        for path in or_exit(seals.remove_unfinished):
            print(printable(f"NOTE removed {path}: its job was killed before the file was complete"), file=sys.stderr)


def input_path(path):
    """A path that may stand among the inputs of rules.

    Snakemake reads braces in a path as wildcards, angle brackets as variables, and knows no escape: such a path is reached
    through a link without them. Files of one folder have their links in one folder, as the parts of a model must lie together.
    """
    if path is None or not re.search("[{}<>]", str(path)):
        return path
    place = Path(path).absolute()
    name = re.sub("[%{}<>]", lambda sign: f"%{ord(sign[0]):02X}", place.name)
    link = files.LINKS / digest(str(place.parent))[:12] / name
    or_exit(make_link, link, place)
    return str(link)


def make_link(link, place):
    """Make a link to a place, if it is not there."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(place)


def literal(value):
    """A parameter with texts of the user, whose braces Snakemake would read as wildcards were it no function."""
    return lambda w: value


# Files of another tool are converted first; what follows reads the converted data.
FOREIGN = CONFIG.logged_data if isinstance(CONFIG.logged_data, inputs.ForeignData) else None
CONVERTED = "results/converted"
if FOREIGN:
    from arena_cje.data import convert

    CHOICES = convert.Choices(**FOREIGN.model_dump(exclude={"format", "file"}))
    OVERVIEW = or_exit(convert.overview, FOREIGN.format, FOREIGN.file, CHOICES, Path(".arena-cje/converted"))
    folder = f"{CONVERTED}/fresh_draws" if OVERVIEW["targets"] else None
    CONFIG = CONFIG.model_copy(update={"logged_data": f"{CONVERTED}/logged.jsonl", "fresh_draws": folder})

USER_DATA = ("logged_data", "fresh_draws", "probes", "calibration_data")
CONFIG = CONFIG.model_copy(update={name: input_path(getattr(CONFIG, name)) for name in USER_DATA})


def model_processes():
    """How many model processes run side by side on this machine: one on a GPU, else one a physical core."""
    if CONFIG.model_slots:
        return CONFIG.model_slots
    offloads = any(model.n_gpu_layers != 0 for model in CONFIG.models.values())
    return 1 if offloads and has_gpu() else psutil.cpu_count(logical=False) or 1


# --cores 8 on a small machine must not start eight models. On a cluster each node has its own cores, so nothing is limited
# from the head node, where --jobs counts jobs (`workflow.local_exec` is not known yet); --resources model_slots=N overrides.
if workflow.resource_settings.nodes is None and "model_slots" not in workflow.global_resources:
    workflow.register_resource("model_slots", model_processes())


wildcard_constraints:
    shard=r"\d\d\d\d+",
    policy=values.NAME,
    context="[A-Za-z0-9_.-]+",
    model=values.NAME,
    coverage=r"1\.0|0\.[0-9]*[1-9]",
    estimator="|".join(CONFIG.analyses),


def resource_file(name, kind):
    """A file the configuration names: the user's, else the workflow's. A text that cannot be read ends the workflow."""
    path = or_exit(config_parse.find_file, name, kind, workflow_resources=RESOURCES)
    if kind != "prompts":
        or_exit(files.read_text, path)
    return input_path(str(path))


@functools.cache
def prompt_pool():
    """The prompts of the source in their order: read when the first job needs them, once for all starts of the workflow."""
    source = or_exit(config_parse.find_prompts, CONFIG.prompts.source, workflow_resources=RESOURCES)
    makes_results = not (ONLY_PRINTS or workflow.dryrun)
    pool = or_exit(stage_plan.prompt_pool, CONFIG, source, Path(".arena-cje/prompts"), makes_results=makes_results)
    if pool.newly_read:
        print(f"NOTE {pool.note}", file=sys.stderr)
    return pool


@functools.cache
def fingerprints():
    """Hashes of the prompts of all shards."""
    return or_exit(stage_plan.shard_fingerprints, CONFIG, prompt_pool(), Path(".arena-cje/shards.json"))


def text_sources():
    """Where the texts of requests come from, for those who estimate or try requests; the rest stands in the configuration."""
    pool = str(prompt_pool().path) if CONFIG.logged_data is None else None
    return {"pool": pool, "resources": str(RESOURCES)}


def any_of(names):
    """A wildcard's pattern for these names; one that nothing matches where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def system_prompt_file(name):
    """The file of a system prompt; a text of the configuration is written into one."""
    file = values.system_prompt_file(name)
    if values.is_text(name) and len(name) < 255 and Path(name).is_file():
        sys.exit(
            f"ERROR config: `system_prompt` {printable(name)!r} would be read as a text, and is a file; give the file a name that "
            "ends in .txt"
        )
    if values.is_text(name) and not Path(file).is_file():
        or_exit(files.write_bytes, file, name.encode())
    return resource_file(file, "policies")


# The files of the system prompts as rule inputs, by the name the policies use; none where no system message is sent.
SYSTEM_PROMPTS = {
    name: system_prompt_file(name) if name else []
    for name in {policy.system_prompt for policy in CONFIG.policies.values()}
    if CONFIG.logged_data is None
}


def has_logprobs():
    """Whether a user's own data may have log probabilities; the workflow's own are a matter of the configuration."""
    if FOREIGN:
        return OVERVIEW["has_logprobs"]
    path = None if CONFIG.logged_data is None else Path(CONFIG.logged_data)
    if path is None or not path.is_file():
        return True
    with path.open("rb") as rows:
        is_jsonl = rows.read(1) == b"{"  # a file of another kind gets its error when it is read
    return not is_jsonl or contains(path, b"target_policy_logprobs")


# The configured estimators and variants whose needs are met: a user's own data may have no fresh draws or log probabilities, a
# base policy behind an API may have no log probabilities.
ESTIMATORS = [name for name in CONFIG.estimators if CONFIG.can_run(name)]
WITHOUT_LOGPROBS = []  # estimators that are left out because the data have no log probabilities
if not has_logprobs():
    WITHOUT_LOGPROBS = [name for name in ESTIMATORS if CONFIG.needs_weights(name)]
    ESTIMATORS = [name for name in ESTIMATORS if name not in WITHOUT_LOGPROBS]
    if not ESTIMATORS:
        sys.exit(
            f"ERROR config: none of `estimators` can run on {CONFIG.logged_data}, which has no log probabilities: "
            f"{', '.join(CONFIG.estimators)}; list 'direct', which needs fresh draws alone (fresh_draws=DIR)"
        )


def reported_settings():
    """Settings that results depend on, for pages and results files."""
    own = CONFIG.model_copy(update={"logged_data": FOREIGN, "fresh_draws": None}) if FOREIGN else CONFIG
    return settings(own, folder=Path.cwd())


def estimates_at(coverage, kind="json"):
    """Results of the configured estimators at a coverage, or at several, the first estimator's first."""
    return expand(f"results/coverage_{{coverage}}/{{name}}.{kind}", coverage=coverage, name=ESTIMATORS)


def validation_at(coverage):
    """Estimates beside the true values, where the configuration has the oracle label all responses."""
    known = CONFIG.logged_data is None and CONFIG.oracle.truth_coverage
    return expand("results/coverage_{coverage}/validation.csv", coverage=coverage) if known else []


PLAN = targets.PLAN
# A plan needs the judge's saving, which cannot be measured at coverage 1.
PILOT_COVERAGE = max(CONFIG.coverages, key=lambda coverage: float(coverage) % 1)


def all_estimates():
    """Targets of the whole experiment that are numbers."""
    coverages = CONFIG.coverages
    return estimates_at(coverages) + estimates_at(coverages, "csv") + validation_at(coverages)


def all_results():
    """Targets of the whole experiment, but for the archive of them."""
    return [*all_estimates(), PLAN, *expand([exhibit.path for exhibit in EXHIBITS], coverage=CONFIG.coverages)]


MODELS_YAML = RESOURCES / "models" / "MODELS.yaml"


@functools.cache  # the input functions of every job ask
def gguf(model):
    """The GGUF file of a configured model; a name without a recipe, or a path without a file, ends the workflow."""
    block = CONFIG.models[model]
    if block.path:
        or_exit(gguf_files.check_magic, block.path)
        return [input_path(str(part)) for part in gguf_files.parts(block.path)][0]
    file = RESOURCES / "models" / block.file
    if not file.exists():
        or_exit(fetch.read_entry, block.file, MODELS_YAML)
    return str(file)


def gguf_parts(model):
    """The files of a configured model: one, or all parts of a split one."""
    path = CONFIG.models[model].path or gguf(model)
    return [input_path(str(part)) for part in or_exit(gguf_files.parts, path)]


def model_record(block):
    """What is recorded of the model that a policy or a grader runs here; nothing where it runs elsewhere."""
    return f"results/models/{block.model}.json" if block.provider == values.LOCAL else []


def memory(path):
    """Megabytes that a process with this model asks for: its file, as much again for caches, and buffers.

    Snakemake reads the `FileNotFoundError` of a file that is yet to be fetched as a resource that is not known yet.
    """
    Path(path).stat()
    return 500 + 2 * gguf_files.size(path) // 10**6
