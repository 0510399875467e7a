"""Tell what the last run has done, what it has left and what failed."""

from pathlib import Path

from arena_cje.stages import status
from arena_cje.stages.jobs import job

with job(snakemake):
    print(f"\n{status.table(status.read_status(Path('.')))}\n", flush=True)
