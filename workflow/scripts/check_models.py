"""Ask each configured model for one token, and say which do not answer as they must."""

from arena_cje.errors import UserError
from arena_cje.stages import model_check
from arena_cje.stages.jobs import configuration, job

with job(snakemake):
    config = configuration(snakemake)
    found = model_check.run(config, snakemake.params.source, snakemake.params.resources)
    print(f"\n{model_check.table(found)}\n", flush=True)
    failed = sum(not one.ok for one in found)
    if failed:
        raise UserError(f"{failed} of {len(found)} models cannot do what they are wanted for; the table says why")
