"""The results of one coverage in the formats of others: the values of the first estimator, the ranks of all."""

import arena_cje
from arena_cje.data import schemas
from arena_cje.report import exports
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    data, made = snakemake.input, snakemake.output
    results = [arena_cje.load(path) for path in data.results]
    validation = exports.read_validation(data.validation) if data.validation else None
    truths = exports.truths_of(validation, results[0].name)
    found = exports.token_level(results[0], snakemake.wildcards.coverage, truths)
    log.info("%d guard rails are violated", len(found["guard_rail_violations"]))
    schemas.write_json(made.results, found)
    schemas.write_csv(made.leaderboard, exports.leaderboard(results))
