"""Look at the results so far: what they decide over all planned looks, and whether the next labels are needed."""

import json
from pathlib import Path

from arena_cje import files
from arena_cje.data.draws import read_draws
from arena_cje.data.names import policy_of
from arena_cje.errors import UserError
from arena_cje.money.labels import usd_per_label
from arena_cje.results import looks, result
from arena_cje.stages.jobs import configuration, job

with job(snakemake) as log:
    plan = looks.Plan.of(json.loads(snakemake.params.plan))
    price = usd_per_label(configuration(snakemake))
    if plan.max_usd is not None and price is None:
        raise UserError(
            "config: `looks.max_usd` needs the price of a label, which is not known; give `prices` of the oracle's model, or "
            "`labeling.usd_per_vote` for people"
        )
    results = {Path(path).parent.name.removeprefix("coverage_"): result.load(path) for path in snakemake.input.results}
    draws = [Path(path) for path in snakemake.input.draws]
    n_target_labels = {
        coverage: sum(
            row.oracle_label is not None
            for path in draws
            if path.parents[1].name == f"coverage_{coverage}" and policy_of(path.stem) != estimates.base_policy
            for row in read_draws(path, policy_of(path.stem), reading=estimates.reading)
        )
        for coverage, estimates in results.items()
    }
    first = next(iter(results.values()))
    account = looks.document(
        plan,
        [
            looks.Look.of(coverage, estimates, n_target_labels[coverage], price)
            for coverage, estimates in results.items()
        ],
        alpha=first.document["metadata"]["alpha"],
        estimator=first.name,
        against=first.document["decision"]["against"],
    )
    log.info(account["sentence"])
    if account["stop"] is None:
        # Where looks went on to an end before, under another plan or on other data, Snakemake would take that end for this one's.
        Path(snakemake.output[0]).parent.with_suffix(".json").unlink(missing_ok=True)
    files.write_json(snakemake.output[0], account)
