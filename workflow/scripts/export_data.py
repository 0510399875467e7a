"""The data of one coverage in the formats of others, with rewards as the first estimator calibrates them."""

import json

import arena_cje
from arena_cje.data import schemas
from arena_cje.report import exports
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    data, made = snakemake.input, snakemake.output
    result = arena_cje.load(data.result)
    non_propensity = json.loads(snakemake.params.non_propensity)
    logged, rewards = exports.logged_rows(data.dataset, result, data.calibration or None)
    logged = exports.without(logged, non_propensity, result.base_policy)
    tokens = exports.token_logprobs(data.logprobs) if data.logprobs and result.base_policy not in non_propensity else {}
    rows = exports.log_rows(logged, rewards, result.base_policy, tokens)
    told = [row for row in rows if row["sequence_logp"] is not None]
    log.info("%d rows, %d of them too improbable for pi0", len(rows), sum(row["pi0"] is None for row in told))
    schemas.write_jsonl(made.sampler, exports.sampler_rows(logged, rewards))
    schemas.write_jsonl(made.log, rows)
