"""Lay out the dashboard of one coverage."""

import json
from pathlib import Path

import arena_cje
from arena_cje.data import schemas
from arena_cje.data.draws import read_draws
from arena_cje.data.logged import read_logged
from arena_cje.files import write_bytes
from arena_cje.money import account
from arena_cje.report import dashboard, exports
from arena_cje.report.sources import coverage_of
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    given, params = snakemake.input, snakemake.params
    results = [arena_cje.load(path) for path in given.results]
    first = results[0]
    logged, _, _ = read_logged(given.dataset, first.base_policy, first.policies, reading=first.reading)
    drawn = {Path(path).stem: path for path in given.draws if Path(path).stem in first.policies}
    validation = exports.read_validation(given.validation).to_dicts() if given.validation else []
    page = dashboard.render(
        results,
        logged=logged,
        draws={policy: read_draws(path, policy, reading=first.reading) for policy, path in drawn.items()},
        summary=schemas.read_json(given.summary),
        others=[(coverage_of(path), arena_cje.load(path)) for path in given.others],
        validation=validation,
        # What was timed is no input: it says how the run went, and the page is no staler for a faster one.
        benchmarks=dashboard.read_benchmarks("logs/benchmarks"),
        spending=account.read_ledger(),
        configuration=json.loads(params.configuration),
        coverage=snakemake.wildcards.coverage,
    )
    write_bytes(snakemake.output[0], page.encode())
    log.info("%.1f MB, %d items", len(page.encode()) / 1e6, len(logged))
