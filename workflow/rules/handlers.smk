# Before the first job and after the last. An outer workflow calls these itself, as `arena.onstart()`, `arena.onsuccess()`,
# `arena.onerror()` where its module is named arena: Snakemake runs the handlers of the main workflow alone.

import threading
from contextlib import suppress

from arena_cje.stages import run_record, status
from arena_cje.terminal import ending, progress

INTERRUPTED = threading.Event()
PROGRESS = progress.Progress(Path("."), TERMINAL.screen, CONFIG.progress_seconds, redraw=TERMINAL.can_redraw)

# Outputs of jobs that call an API.
ANSWERS = re.compile(r"results/(?P<stage>responses|logprobs|judge|judges/[^/]+|oracle)/(?P<name>[^/]+)/")


def asked_by(job):
    """The block whose API a job asks, and the folder of the replies that there may be already.

    Both follow from what the job makes: another workflow may use its rule under another name.
    """
    answers = ANSWERS.match(job.output[0])
    stage, name = answers["stage"], answers["name"]
    if stage == "responses":
        return CONFIG.policies[name], f"generate/{name}"
    if stage == "logprobs":
        return CONTEXTS[name], f"score/{name}"
    return CONFIG.graders[stage], f"{stage}/{name}"


def check_keys():
    """End before the first job where a later one would have no key: earlier jobs may be expensive.

    Where there are replies already, they may be all that is needed, and a job that needs more says so itself.
    """
    jobs = [job for job in workflow.dag.needrun_jobs() if job.resources.get("api_jobs")]
    asking = [
        asked_by(job) for job in jobs if ANSWERS.match("".join(job.output[:1]))
    ]  # others are of an outer workflow
    new = [block for block, folder in asking if not Path("results/journal/calls", folder).exists()]
    if workflow.local_exec:  # jobs elsewhere have an environment of their own
        or_exit(endpoints.check_keys, [CONFIG.endpoint(block) for block in new])


def only_tells():
    """Is this a run of a target that only prints?"""
    return bool(PRINTING_TARGETS & {*(workflow.dag_settings.targets or ())})


def show_results():
    """Print the estimates of the run as tables, but for `make run`, which shows them also where nothing was to be done."""
    from arena_cje.__main__ import show
    from arena_cje.errors import escape_what_it_lacks

    escape_what_it_lacks()
    if not only_tells() and os.environ.get("ARENA_CJE_SHOW") != "no":
        paths = [path for path in results_to_show() if Path(path).exists()]
        if paths:
            or_exit(show, paths)


def closing_lines():
    """Where the requested pages and figures are, and what lists all results; `make run` ends with its own table."""
    from arena_cje.terminal.show import closing

    if only_tells() or os.environ.get("ARENA_CJE_SHOW") == "no":
        return []
    named = [coverage for target in workflow.dag_settings.targets or () if (coverage := targets.coverage_in(target))]
    return list(map(printable, closing(dict.fromkeys(named or CONFIG.coverages), ending.run_folder())))


def tell_spending():
    """One line on what the calls to APIs have cost, where there were any."""
    from arena_cje.calls.ledger import LEDGER
    from arena_cje.money import account

    if LEDGER.exists() and not only_tells():
        print(f"\n{account.account(CONFIG, **text_sources()).last_line()}")


def planned_jobs():
    """The jobs of the run, for its record."""
    needed = {*workflow.dag.needrun_jobs()}
    for job in workflow.dag.jobs:
        if job.output:
            outputs, logs = list(map(str, job.output)), list(map(str, job.log))
            yield run_record.planned_job(CONFIG, outputs, logs, needed=job in needed)


def begin():
    """Record the run, send the lines of jobs where they belong, and start to show progress."""
    if only_tells():
        return
    or_exit(run_record.write_start, planned_jobs())
    ending.note_interrupts(INTERRUPTED)
    TERMINAL.send_jobs_to_log()
    if CONFIG.progress_seconds and not TERMINAL.is_quiet:
        PROGRESS.start()


def end(succeeded):
    """Record the end of the run, and show its progress a last time."""
    if only_tells():
        return
    or_exit(run_record.write_end, succeeded=succeeded, interrupted=INTERRUPTED.is_set())
    PROGRESS.end()


def last_lines():
    """Why the run has failed, and how it goes on."""
    if only_tells():
        return []
    dag = workflow.dag
    unfinished = {str(path) for job in dag.jobs if not dag.noneedrun_finished(job) for path in job.output}
    return or_exit(lambda: [*ending.lines(status.read_status(Path("."), with_rows=False), unfinished)])


onstart:
    check_keys()
    begin()


onsuccess:
    end(succeeded=True)
    TERMINAL.end([] if TERMINAL.is_verbose or only_tells() else ending.warnings_note())
    show_results()
    or_exit(tell_spending)
    if closing := closing_lines():
        print("", *closing, sep="\n")


onerror:
    end(succeeded=False)
    with suppress(UserError):  # of a damaged file; the reasons of the failure come next
        tell_spending()
    TERMINAL.end(last_lines())
