"""Ask each configured model for a few tokens, and report those whose replies cannot be used."""

from arena_cje.errors import UserError
from arena_cje.stages import model_check
from arena_cje.stages.jobs import configuration, job

with job(snakemake):
    config = configuration(snakemake)
    findings = model_check.run(config, snakemake.params.pool, snakemake.params.resources)
    print(f"\n{model_check.table(findings)}\n", flush=True)
    failed = sum(not finding.ok for finding in findings)
    if failed:
        raise UserError(
            f"{failed} of {len(findings)} models cannot do what the configuration needs; the reasons are in the table"
        )
