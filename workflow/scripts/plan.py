"""Plan the size of a study like this one, at the prices that this one has paid."""

import json
from pathlib import Path

from arena_cje import files
from arena_cje.data import schemas
from arena_cje.data.names import policy_of
from arena_cje.errors import UserError
from arena_cje.money import account
from arena_cje.planning import plan, sources
from arena_cje.planning.study import Goal
from arena_cje.results import analyze
from arena_cje.stages.jobs import job

with job(snakemake) as log:
    params, data = snakemake.params, snakemake.input
    settings = analyze.Settings.of(
        json.loads(params.options),
        base_policy=schemas.read_json(data.summary)["base_policy"],
        thresholds=analyze.with_overrides(json.loads(params.thresholds)),
    )
    draws = {policy_of(Path(path).stem): path for path in data.draws} or None
    known = sources.of_data(data.dataset, draws, settings, calibration_data=data.calibration or None)
    planning = json.loads(params.planning)
    prices = plan.Prices(planning["price_judge"], planning["price_label"]).over(
        plan.prices_of(account.read_ledger(), known.pilot.prompts)
    )
    goal = Goal(planning["difference"], planning["half_width"], planning["power"])
    try:
        content = plan.document(known.pilot, goal, prices, budget=planning["budget_usd"], audits=known.audits)
    except UserError as error:  # of the budget: the rest of the plan does not depend on it
        log.warning("no plan for the budget: %s", error)
        content = plan.document(known.pilot, goal, prices, audits=known.audits)
    files.write_json(snakemake.output[0], content)
    log.info("%d differences are planned, %d are not", len(known.pilot.differences), len(known.pilot.omitted))
