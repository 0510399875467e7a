# What all rules share: the checked configuration, where things lie, and what a job's parameters are.
import copy
import os
import re
import sys
from pathlib import Path

import psutil

WORKFLOW = Path(workflow.current_basedir).parent  # the folder of this workflow's rules, scripts and library
ROOT = WORKFLOW.parent
RESOURCES = ROOT / "resources"

# Jobs import the library from here, installed or not (a conda environment has it from nowhere else).
sys.path.insert(0, str(WORKFLOW))
os.environ["PYTHONPATH"] = os.pathsep.join(path for path in (str(WORKFLOW), os.environ.get("PYTHONPATH")) if path)

from arena_cje import estimators
from arena_cje.calls import endpoint as endpoints
from arena_cje.config import parse as config_parse
from arena_cje.config import records, scoring, targets
from arena_cje.data import prompts
from arena_cje.errors import UserError
from arena_cje.grading import plan
from arena_cje.money import prices
from arena_cje.llama.model import has_gpu
from arena_cje.provenance import canonical, code_hash
from arena_cje.report.settings import settings

own = copy.deepcopy(config)  # what --configfile and --config give; Snakemake merges it into the shipped file below


configfile: str(ROOT / "config" / "config.yaml")


def said(function, *args, **kwargs):
    """Call a library function; a user's mistake ends Snakemake with one line and status 1."""
    try:
        return function(*args, **kwargs)
    except UserError as error:
        sys.exit(f"ERROR {error}")


CONFIG = said(config_parse.parse, config, own=own)
config.update(CONFIG.model_dump(mode="json"))  # scripts read the defaults too
BASE = CONFIG.base_policy
if workflow.is_main_process:
    for note in scoring.notes(CONFIG):
        print(f"NOTE {note}", file=sys.stderr)
    if not {*targets.TELLING} & {*sys.argv[1:]}:
        said(prices.check_budget, CONFIG)
# Snakemake tells the targets only after it has read this file; then a slip would be a missing rule instead of a sentence.
said(targets.check, sys.argv[1:], CONFIG)
said(targets.check_writable, Path("results"))


def model_processes():
    """How many model processes run side by side on this machine: one on a GPU, else one a physical core."""
    if CONFIG.model_slots:
        return CONFIG.model_slots
    offloads = any(model.n_gpu_layers != 0 for model in CONFIG.models.values())
    return 1 if offloads and has_gpu() else psutil.cpu_count(logical=False) or 1


# --cores 8 on a small machine must not start eight models. On a cluster each node has its own cores, so nothing is limited
# from the head node; --resources model_slots=N overrides.
if workflow.local_exec and "model_slots" not in workflow.global_resources:
    workflow.register_resource("model_slots", model_processes())


wildcard_constraints:
    shard=r"\d\d\d\d+",
    policy=records.NAME,
    context="[A-Za-z0-9_.-]+",
    model=records.NAME,
    coverage=r"1\.0|0\.[0-9]*[1-9]",
    estimator="|".join(CONFIG.analyses),


def resource_file(name, kind):
    """A file the configuration names: the user's, else the workflow's."""
    return str(said(config_parse.find, name, kind, workflow_resources=RESOURCES))


def any_of(names):
    """A wildcard's pattern for these names; one that nothing matches where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def asked(block, *, scored=False):
    """Who is asked, of all that determines an answer from an API: the parameters of a job beside its files."""
    found = CONFIG.endpoint(block)
    echo = {"echo_max_tokens": found.echo_max_tokens} if scored else {}
    return {"model": block.model, **found.identity, **echo, "extra": block.extra}


# The files of the system prompts as rule inputs, by the name the policies use; none where no system message is sent.
SYSTEM_PROMPTS = {
    name: resource_file(name, "policies") if name else []
    for name in {policy.system_prompt for policy in CONFIG.policies.values()}
    if CONFIG.logged_data is None
}


# The configured estimators and variants whose needs are met: data brought along may have no fresh draws, a base policy behind
# an API may have no log probabilities.
ESTIMATORS = [name for name in CONFIG.estimators if CONFIG.can_run(name)]


def settings_shown():
    """Settings that results depend on, for those who look at them."""
    return settings(CONFIG, folder=Path.cwd())


def estimates_at(coverage, kind="json"):
    """Results of the configured estimators at a coverage, or at several, the first estimator's first."""
    return expand(f"results/coverage_{{coverage}}/{{name}}.{kind}", coverage=coverage, name=ESTIMATORS)


def validation_at(coverage):
    """Estimates beside the truth, where the configuration has it found out."""
    known = CONFIG.logged_data is None and CONFIG.oracle.truth_coverage
    return expand("results/coverage_{coverage}/validation.csv", coverage=coverage) if known else []


def all_estimates():
    """Targets of the whole experiment that are numbers."""
    coverages = CONFIG.coverages
    return estimates_at(coverages) + estimates_at(coverages, "csv") + validation_at(coverages)


def all_results():
    """Targets of the whole experiment, but for the archive of them."""
    return [*all_estimates(), *expand([shown.path for shown in EXHIBITS], coverage=CONFIG.coverages)]
