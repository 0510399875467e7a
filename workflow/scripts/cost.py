"""Tell what the calls to APIs cost: the estimate of the configuration, and beside it what was spent."""

from arena_cje import files, spending
from arena_cje.jobs import configuration, job

with job(snakemake):
    config = configuration(snakemake)
    account = spending.account(config, snakemake.params.source, snakemake.params.resources)
    files.write_json("results/cost.json", account.document())
    print(f"\n{account.table()}\n", flush=True)
