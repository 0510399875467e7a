"""What every job of the workflow does around its work: log, errors in one sentence, model, journal, benchmark.

    with job(snakemake) as log:
        ...

Log lines go to the job's log file and, with the job's name before them, to standard error. A `UserError`, or an error of the
file system, ends the job with one line `ERROR ...` and exit status 1; the line of any other error, which is a bug, has its
traceback below it. No line holds a key of an API. Inputs under results/ are checked against their seals before the body; outputs
are sealed after it.
"""

from __future__ import annotations

import _thread
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from arena_cje import files
from arena_cje.calls.errors import redact
from arena_cje.config import plugins
from arena_cje.data import schemas
from arena_cje.errors import UserError, escape_what_it_lacks, file_errors, printable
from arena_cje.journal import Journal, Tally
from arena_cje.stages import seals
from arena_cje.stages.usage import peak_memory

if TYPE_CHECKING:
    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.ledger import CallPrice
    from arena_cje.calls.request import Ask
    from arena_cje.calls.totals import CallTotals
    from arena_cje.config.records import Config

RESEND_SECONDS = 0.05  # until an interrupt that was dropped is sent again


@contextmanager
def job(snakemake: Any) -> Iterator[logging.Logger]:
    """Log to the job's file and the terminal while the body runs; turn a `UserError` into one line and status 1."""
    escape_what_it_lacks()
    logging.raiseExceptions = False  # a log file on a full disk is no reason for a traceback at every line
    name = " ".join([snakemake.rule, *(str(value) for value in snakemake.wildcards)])
    keys = _keys(snakemake.config)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(_handler(logging.StreamHandler(sys.stderr), f"[{name}] %(levelname)s %(message)s", keys))
    try:
        with file_errors():
            for path in snakemake.log[:1]:  # a benchmark may stand after it
                file = logging.FileHandler(path, mode="w", encoding="utf-8", errors="backslashreplace")
                root.addHandler(_handler(file, "%(asctime)s %(levelname)s %(message)s", keys))
            if paths := snakemake.config.get("plugins"):
                plugins.register(paths)
            with (
                _no_interrupt_lost(),
                seals.sealed(snakemake.input, snakemake.output, snakemake.rule, dict(snakemake.params.items())),
            ):
                yield logging.getLogger("arena_cje")
    except UserError as error:
        root.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        root.warning("interrupted; the same command continues from here")
        sys.exit(130)
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        root.exception("%s; this is a fault of the program, please report it", what)
        sys.exit(1)


@contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """Send an interrupt again that came where Python drops errors: in a callback from C, like that of llama.cpp's log.

    It is sent a moment later, since an interrupt inside the hook would be dropped as well.
    """
    timers: list[threading.Timer] = []

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            earlier(dropped)
            return
        timer = threading.Timer(RESEND_SECONDS, _thread.interrupt_main)
        timer.daemon = True
        timer.start()
        timers.append(timer)

    earlier, sys.unraisablehook = sys.unraisablehook, hook
    try:
        yield
    finally:
        sys.unraisablehook = earlier
        for timer in timers:
            timer.cancel()


class _Redacting(logging.Formatter):
    """Lines without keys and control characters, wherever in them they are: a traceback is part of a line."""

    def __init__(self, form: str, keys: Iterable[str]):
        super().__init__(form)
        self._keys = tuple(keys)

    def format(self, record: logging.LogRecord) -> str:
        return printable(redact(super().format(record), self._keys))


def _handler(handler: logging.Handler, form: str, keys: Iterable[str] = ()) -> logging.Handler:
    handler.setFormatter(_Redacting(form, keys))
    return handler


def _keys(settings: Any) -> set[str]:
    """The keys of all APIs in a configuration, as far as the environment has them."""
    if isinstance(settings, list | tuple):
        return set().union(*map(_keys, settings))
    if not isinstance(settings, Mapping):
        return set()
    variable = settings.get("api_key_env")
    key = (
        {os.environ[variable].strip()} if isinstance(variable, str) and os.environ.get(variable, "").strip() else set()
    )
    return key.union(*map(_keys, settings.values()))


def configuration(snakemake: Any) -> Config:
    """The job's configuration, as checked when the workflow was read."""
    from arena_cje.config.records import Config

    return Config.model_validate(snakemake.config)


@contextmanager
def journal(snakemake: Any, stage: str, name: str | None = None) -> Iterator[Journal]:
    """The journal of a job: one file a shard, in a folder for its stage and policy (or context).

    name: of the file where a job does all shards.

    When the body has ended well, the job's benchmark file has its duration and the number of its items.
    """
    path = Path("results/journal") / stage / f"{name or snakemake.wildcards.shard}.jsonl"
    with Journal(path, fresh=bool(snakemake.config["fresh"])) as opened:
        yield opened
    _write_benchmark(snakemake, opened.tally)


@contextmanager
def calls(snakemake: Any, endpoint: Endpoint, stage: str, name: str, policy: str | None) -> Iterator[Ask]:
    """The job's way to ask an endpoint; its replies are in the journal `results/journal/calls/{stage}/{name}.jsonl`.

    stage, policy: what the calls are for, as in the file of spendings. When the body has ended well, the benchmark file
    has the number of calls and their cost.
    """
    from arena_cje.calls.ledger import LEDGER, Ledger
    from arena_cje.calls.runner import FOLDER, CallJob, journaled_ask

    config = configuration(snakemake)
    ledger = Ledger(LEDGER, _usd(config, endpoint), config.budget_usd)
    call_job = CallJob(endpoint=endpoint, stage=stage, policy=policy, ledger=ledger)
    with Journal(FOLDER / "calls" / stage / f"{name}.jsonl", fresh=config.fresh) as opened:
        yield journaled_ask(call_job, opened)
    _write_benchmark(snakemake, call_job.totals.tally, call_job.totals)


def _usd(config: Config, endpoint: Endpoint) -> CallPrice:
    """What a call at an endpoint costs."""
    from arena_cje.money.prices import Prices

    return partial(Prices(config.prices).usd, base_url=endpoint.base_url)


def _write_benchmark(snakemake: Any, tally: Tally, totals: CallTotals | None = None) -> None:
    row = _benchmark(tally) | _cost(totals)
    lines = ("\t".join(fields) + "\n" for fields in (row.keys(), row.values()))
    files.write_bytes(snakemake.log.benchmark, "".join(lines).encode())


def _cost(totals: CallTotals | None) -> dict[str, str]:
    """What calls of APIs came to; NA where there are none, and where a price is unknown."""
    if totals is None:
        return dict.fromkeys(("calls", "retries", "cost_usd"), "NA")
    cost = "NA" if totals.usd is None else f"{totals.usd:.6f}"
    return {"calls": str(totals.calls), "retries": str(totals.retries.total()), "cost_usd": cost}


def _benchmark(tally: Tally) -> dict[str, str]:
    """What the process has used until now, under the names of Snakemake's benchmarks, and what it has done.

    Rates are those of the work alone, without start and loading; NA where there were no tokens.
    """
    seconds = time.time() - psutil.Process().create_time()
    return {
        "s": f"{seconds:.4f}",
        "h:m:s": str(timedelta(seconds=int(seconds))),
        "max_rss": f"{peak_memory() / 2**20:.2f}",
        "cpu_time": f"{time.process_time():.2f}",
        "items": str(tally.items),
        "prompt_tokens": str(tally.prompt_tokens),
        "response_tokens": str(tally.response_tokens),
        "tokens_per_s": f"{tally.tokens / tally.seconds:.2f}" if tally.tokens else "NA",
        "tokens_per_cpu_s": f"{tally.tokens / tally.cpu_seconds:.2f}" if tally.tokens else "NA",
    }


@contextmanager
def open_model(snakemake: Any, n_ctx: int) -> Iterator[tuple[Any, str]]:
    """The job's model, open, and the recorded hash of its file. How it runs is no parameter: it changes no result."""
    from arena_cje.llama import model

    name = Path(snakemake.input.model).stem
    settings = snakemake.config["models"][name]
    with model.open_model(
        snakemake.input.gguf, n_ctx=n_ctx, n_gpu_layers=settings["n_gpu_layers"], n_threads=snakemake.threads
    ) as opened:
        yield opened, recorded(snakemake.input.model, "sha256")


def same_tokenizer(snakemake: Any) -> bool:
    """Do the job's model and the one that generated the responses share their token ids? Not with one behind an API."""
    paths = (snakemake.input.model, snakemake.input.generated_by)
    return bool(snakemake.input.generated_by) and len({recorded(path, "tokenizer_sha256") for path in paths}) == 1


def recorded(path: str | Path, name: str) -> Any:
    """A value of a model's record; raises a `UserError` where the record lacks it."""
    record = schemas.read_json(path)
    if not isinstance(record, dict) or not record.get(name):
        raise UserError(f"{path}: lacks {name}, which the record of a model must have; {seals.MEND}")
    return record[name]


def text(path: str | list[str]) -> str | None:
    """The text of a prompt file, stripped; None for a rule input that is not there."""
    return files.read_text(path).strip() if path else None


def report(log: logging.Logger, summary: Mapping[str, Any], policy: str = "") -> None:
    """Say how many rows there are, and what was dropped and why; policy: whose, where a job has several."""
    whose = f"{policy}: " if policy else ""
    log.info("%s%d rows", whose, summary["n_rows"])
    for what in ("dropped", "unscored"):
        for reason, count in summary.get(what, {}).items():
            log.warning("%s%d rows %s: %s", whose, count, what, reason)
