"""Tell what the calls to APIs cost: the estimate of the configuration, and beside it what was spent."""

from arena_cje import files
from arena_cje.money import account as money_account
from arena_cje.stages.jobs import configuration, job

with job(snakemake):
    config = configuration(snakemake)
    account = money_account.account(config, snakemake.params.pool, snakemake.params.resources)
    files.write_json("results/cost.json", account.document())
    print(f"\n{account.table()}\n", flush=True)
